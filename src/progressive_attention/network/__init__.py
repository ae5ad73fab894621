"""The papers' networks and what they are compared with: equations, backbones, one class a family."""
