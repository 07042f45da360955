ACT_NAMES: dict[int, str]
