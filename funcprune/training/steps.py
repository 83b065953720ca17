"""The checks that the methods share."""


def check_steps(method: str, **steps: int) -> None:
    """Raises TypeError where a count of steps is no int, ValueError where one is negative or ``every`` is 0."""
    for name, value in steps.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{method}({name}={value!r}): found {type(value).__name__}, expected an int")
        least = 1 if name == "every" else 0
        if value < least:
            raise ValueError(f"{method}({name}={value}): expected at least {least}")


def check_callable(method: str, **arguments: object) -> None:
    """Raises TypeError where an argument is not callable."""
    for name, value in arguments.items():
        if not callable(value):
            raise TypeError(f"{method}({name}={value!r}): found {type(value).__name__}, expected a callable")
