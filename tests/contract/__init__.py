"""The identity and fencing contract (docs/contract.md), executable: a simulated world, its invariants, its bugs."""
