"""Makes texts with the lengths of image captions: log-normal with a median of 9 words, in English and Chinese."""

import random

ENGLISH = "a the two small red old dog cat man woman on in with of and beach street standing holding near".split()
CHINESE = "一 只 两 个 红色 小 老 狗 猫 男人 女人 在 沙滩 上 街道 站着 拿着 旁边 和 的".split()


def caption(generator: random.Random, words: int) -> str:
    """A caption with this many words, in one of two languages."""
    if generator.random() < 0.5:
        return " ".join(generator.choices(ENGLISH, k=words))
    return "".join(generator.choices(CHINESE, k=words))


def mixed(generator: random.Random, count: int) -> list[str]:
    lengths = (max(1, min(60, round(generator.lognormvariate(2.2, 0.45)))) for _ in range(count))
    return [caption(generator, length) for length in lengths]
