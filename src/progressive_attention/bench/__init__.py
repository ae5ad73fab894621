"""How fast the package is, measured side by side with what a user could pick instead and with the machine's limits."""

SUITES = {
    "step": "training steps beside the plain reading of the paper, the attention-free CNN and the machine's limits",
    "inference": "forward alone beside the same, memory, latency, cold start and import",
    "render": "scenes a second",
    "load": "images a second, and a whole evaluation",
    "time-to-accuracy": "wall seconds from an empty process to 98.5 % on MREF",
    "growth": "time and memory by images, questions, queries, attributes and pixels",
}
NEVER_QUICK = ("time-to-accuracy", "growth")
