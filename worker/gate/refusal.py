"""Why a file is not let in: a code that scripts match on, the rule it breaks, and the way out."""

UNREADABLE = "CHECKPOINT_UNREADABLE"
IS_CODE = "CHECKPOINT_IS_CODE"
UNSAFE = "CHECKPOINT_UNSAFE"
DTYPE = "DTYPE_MISMATCH"

RECIPE = "On your machine: torch.save(model.state_dict(), 'teacher.pt'), then upload that file."
_OF_A_NETWORK_OF_YOUR_OWN = (
    " If its architecture is not a built-in one, run trace_network.py there: its file brings the graph."
)


class Refused(Exception):
    """`code` is one of the four above, `rule` what was broken in UPPER_SNAKE, `hint` how to mend it."""

    def __init__(self, code: str, rule: str, detail: str, hint: str = RECIPE) -> None:
        super().__init__(f"{code} {rule}: {detail}")
        self.code = code
        self.rule = rule
        self.detail = detail
        self.hint = hint


def unreadable(rule: str, detail: str, hint: str = RECIPE) -> Refused:
    """Damaged, cut off, of another program, or in a form that is not read."""
    return Refused(UNREADABLE, rule, detail, hint)


def is_code(rule: str, detail: str) -> Refused:
    """It would have to be executed to be read."""
    return Refused(IS_CODE, rule, detail, RECIPE + _OF_A_NETWORK_OF_YOUR_OWN)


def unsafe(rule: str, detail: str, hint: str = RECIPE) -> Refused:
    """It says other things than are there, or would cost more than any checkpoint needs."""
    return Refused(UNSAFE, rule, detail, hint)


_MAX_ITEMS = 8


def shown(value: object, length: int = 80) -> str:
    """A stranger's value for a sentence: short, in ASCII, on one line.

    Never `str(value)` of a list or dict: 40 lists, each holding the one before twice, spell 2^40 brackets.
    """
    if isinstance(value, str | Exception):
        return ascii(str(value)[:length])
    if isinstance(value, bool | int | float) or value is None:
        return str(value)
    if isinstance(value, list | tuple) and all(type(item) is int for item in value[:_MAX_ITEMS]):
        items = [str(item) for item in value[:_MAX_ITEMS]] + ["..."] * (len(value) > _MAX_ITEMS)
        return f"[{', '.join(items)}]"
    return f"a {type(value).__name__}"
