"""Colours and shapes of the servers in plots: each can be told apart on a white page and on a dark one."""

LIGHT_PAGE = "#ffffff"
DARK_PAGE = "#0d1117"
TEXT = "#7a808a"
"""Of letters, axes and the grid, alike on both pages."""

STYLES: dict[str, tuple[str, str, str]] = {
    "product": ("#e5484d", "o", "-"),
    "limit": ("#7c828b", "x", "--"),
    "uwebsockets": ("#3b82f6", "s", "-"),
    "picows": ("#0d9f6e", "^", "-"),
    "websockets": ("#a16207", "v", "-"),
    "ws": ("#65a30d", "D", "-"),
    "socketio": ("#8b5cf6", "P", "-"),
    "nats": ("#0891b2", "<", "-"),
    "centrifugo": ("#d9580f", ">", "-"),
    "centrifugo-plain": ("#d9580f", ">", ":"),
    "baseline": ("#d946a0", "*", "--"),
}
"""By server: colour, marker, line."""

OTHER = ("#b08800", ".", "-.")


def style(server: str) -> tuple[str, str, str]:
    return STYLES.get(server, OTHER)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2, "contrast ratio"): 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
