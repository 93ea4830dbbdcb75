"""Networks wall to wall."""
