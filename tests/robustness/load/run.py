"""Load the demo page's server: ``python tests/robustness/load/run.py --clients 50 --requests 5000``; docs/demo.md.

Half of the requests come while hostile clients hold, pour and dribble. Prints what was tried and what survived; exits 1
if a good request failed, a bad one was not refused in words, or a bound on time, memory, disk or the log was broken.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from load.bad import BAD, wrong
from load.good import GOOD, NETWORKS, Question, questions
from load.hostile import Hostile
from load.payloads import Traps
from load.served import MIB, Served
from load.visitor import Reply, Visitor

GOOD_SHARE = 0.6
MEMORY = 500 * MIB  # that the server may grow by: two pictures of 16,000,000 pixels decoded at a time, and its caches
DISK = 1.5 * 2**30  # of its folder: the limit of pictures, and what uploads bring between two looks
HELD = {"idle": 10, "slow_head": 10, "slow_body": 60, "deaf": 120}  # s; of the deaf 60 once their sockets are full
SLACK = 15.0  # s more on a busy machine
SECRET = "nobody-may-read-this-2f7a"


class Done(NamedTuple):
    """A request that came back: its kind, whether good, how long it took, and what was wrong, "" if nothing."""

    kind: str
    good: bool
    seconds: float
    fault: str


class Plan(NamedTuple):
    """One request to make, its seed drawn from the run's."""

    good: bool
    kind: str
    seed: int


def planned(requests: int, rng: Random) -> Iterator[Plan]:
    """Good and bad ones mixed; of the bad, each kind in turn."""
    kinds = list(BAD)
    rng.shuffle(kinds)
    for number in range(requests):
        good = rng.random() < GOOD_SHARE
        kind = rng.choices(list(GOOD), (40, 20, 10, 1))[0] if good else kinds[number % len(kinds)]
        yield Plan(good, kind, rng.getrandbits(32))


class Guarded(Visitor):
    """A visitor that looks for the secret in all that it is given."""

    def send(self, *arguments, **named) -> Reply:
        return guarded(super().send(*arguments, **named))

    def raw(self, sent: bytes) -> Reply:
        return guarded(super().raw(sent))


def guarded(reply: Reply) -> Reply:
    if SECRET.encode() in reply.body or b"root:x:0:0" in reply.body:
        raise HTTPException("a file outside of the folder was read")
    return reply


def made(visitor: Visitor, plan: Plan, asked: list[Question], traps: Traps) -> Done:
    """Make one request."""
    rng, began = Random(plan.seed), time.monotonic()
    try:
        fault = GOOD[plan.kind](visitor, rng, asked) if plan.good else wrong(BAD[plan.kind](visitor, rng, traps))
    except (OSError, HTTPException, ValueError, KeyError) as error:
        fault = f"{type(error).__name__}: {error}"
    return Done(plan.kind, plan.good, time.monotonic() - began, fault)


def load(visitor: Visitor, plans: list[Plan], clients: int, asked: list[Question], traps: Traps) -> list[Done]:
    """All of the plans, by so many clients at a time."""
    todo: SimpleQueue[Plan] = SimpleQueue()
    done: list[Done] = []
    for plan in plans:
        todo.put(plan)

    def work() -> None:
        while True:
            try:
                plan = todo.get_nowait()
            except Empty:
                return
            done.append(made(visitor, plan, asked, traps))
            if done[-1].fault:
                print(f"{plan}: {done[-1].fault[:300]}", flush=True)

    workers = [threading.Thread(target=work) for _ in range(clients)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return done


def seconds(done: list[Done]) -> str:
    """The median and the 99th percentile of the good ones."""
    taken = [one.seconds for one in done if one.good]
    return "{:.2f} / {:.2f} s".format(*np.percentile(taken, (50, 99))) if taken else "none"


def log_faults(log: str, bad: int) -> list[str]:
    """What the server's log must not hold: tracebacks, and more lines than there were bad requests."""
    traces = log.split("Traceback")[1:]
    faults = [f"{len(traces)} tracebacks in the log, the last: {traces[-1][-1000:]}"] if traces else []
    lines = len(log.splitlines())
    return [*faults, f"{lines} lines in the log of {bad} bad requests"] if lines > bad else faults


def held_too_long(held: dict[str, float]) -> list[str]:
    """Slow clients that were let for too long."""
    late = {name: held[name] for name, most in HELD.items() if held.get(name, 0.0) > most + SLACK}
    return [f"{name} was held for {after:.0f} s, expected {HELD[name]}" for name, after in late.items()]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="good and bad ones at a time (%(default)s)")
    parser.add_argument("--requests", type=int, default=5000, help="of theirs, in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws the requests (%(default)s)")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="load-") as made_folder:
        return loaded(Path(made_folder), chosen.clients, chosen.requests, chosen.seed)


def loaded(folder: Path, clients: int, requests: int, seed: int) -> int:
    """Plant the secrets, serve, ask, and tell; 1 if anything was wrong."""
    asked = questions(folder)
    hidden = folder / ".gradio" / "cached_examples"  # Gradio would serve what lies here, too
    hidden.mkdir(parents=True)
    secrets = (folder / "secret.txt", hidden / "secret.txt", folder / "pictures-secret.png")
    for path in secrets:
        path.write_text(SECRET)
    traps = Traps(SECRET, secrets, asked[0].content)
    plans = list(planned(requests, Random(seed)))
    served = Served(folder, NETWORKS)
    try:
        visitor = Guarded(served.host, served.port)
        assert visitor.events
        load(visitor, list(planned(4 * clients, Random(-seed - 1))), clients, asked, traps)  # warm
        before, used = served.memory, [served.cpu]
        quiet = load(visitor, plans[: requests // 2], clients, asked, traps)
        used.append(served.cpu)
        after_quiet = served.memory
        with Hostile(served.host, served.port, clients) as hostile:
            rough = load(visitor, plans[requests // 2 :], clients, asked, traps)
            used.append(served.cpu)
        last = load(visitor, [Plan(True, kind, seed) for kind in GOOD], 1, asked, traps)  # it still answers
        after = served.memory
    finally:
        code = served.stop()
    done = [*quiet, *rough, *last]
    bad = sum(not one.good for one in done) + hostile.tried.total()
    faults = [*log_faults(served.log.read_text(), bad), *held_too_long(hostile.held)]
    if code not in (0, 130):
        faults.append(f"Ctrl-C ended it with {code}")
    if left := [str(path.relative_to(folder)) for path in served.folder.rglob("*") if path.is_file()]:
        faults.append(f"left behind: {', '.join(left)}")
    if served.most_memory - before > MEMORY:
        faults.append(f"memory grew by {(served.most_memory - before) / MIB:.0f} MiB, expected at most {MEMORY // MIB}")
    if served.most_disk > DISK:
        faults.append(f"pictures took {served.most_disk / MIB:.0f} MiB")
    for kind in (*GOOD, *BAD):
        those = [one for one in done if one.kind == kind]
        taken = f"   {seconds(those)}" if kind in GOOD else ""
        print(f"{kind:28} {len(those):6,} tried {sum(not one.fault for one in those):6,} survived{taken}")
    for name, count in hostile.tried.items():
        print(f"hostile: {name:19} {count:6,} connections, held for at most {hostile.held.get(name, 0.0):.0f} s")
    print("the server's CPU time a request, all kinds together: {:.0f} ms, among hostile clients {:.0f} ms".format(
        *(1000 * (used[i + 1] - used[i]) / max(1, len(those)) for i, those in enumerate((quiet, rough)))))  # fmt: skip
    print(f"memory {before / MIB:.0f} MiB, then {after_quiet / MIB:.0f}, at the end {after / MIB:.0f}, "
          f"at most {served.most_memory / MIB:.0f}; pictures at most {served.most_disk / MIB:.0f} MiB; "
          f"log {len(served.log.read_text().splitlines()):,} lines; exit code {code}")  # fmt: skip
    for fault in faults:
        print(f"fault: {fault}")
    failed = Counter(one.good for one in done if one.fault)
    print(
        f"load: {clients} clients, {len(done):,} requests, seed {seed}: {sum(one.good for one in done):,} good, "
        f"{failed[True]} failed; {sum(not one.good for one in done):,} bad, {failed[False]} not refused in words; "
        f"{len(faults)} other faults; p50 / p99 of good ones {seconds(quiet)}, among hostile clients {seconds(rough)}"
    )
    return int(bool(faults or failed))


if __name__ == "__main__":
    raise SystemExit(main())
