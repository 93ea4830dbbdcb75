"""From effects to decisions: whom to treat with a budget, how large a trial must be, where the next one belongs."""

__all__: list[str] = []
