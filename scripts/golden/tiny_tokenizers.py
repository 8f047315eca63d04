"""Trains tiny tokenizers, the same ones each time."""

import collections
import io
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

#: Rules for SentencePiece, whose usual ones are 240 kB: full width, wide space, ligature.
RULES = "FF21\t41\nFF22\t42\nFF25\t45\nFF24\t44\n3000\t20\nA0\t20\n9\t20\nA\t20\nFB01\t66 69\n200B\t\n"


def sentencepiece_model(texts: list[str], **options) -> bytes:
    """Train a SentencePiece model with `RULES`."""
    buffer = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as rules:
        rules.write(RULES)
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=buffer, normalization_rule_tsv=rules.name, num_threads=1,
            minloglevel=2, **options)
    model = sentencepiece_model_pb2.ModelProto.FromString(buffer.getvalue())
    # The name of the temporary file.
    model.normalizer_spec.normalization_rule_tsv = ""
    return model.SerializeToString()


def byte_pairs(texts: list[str], merges: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The letters of texts with `▁` for spaces, and the most frequent merges within words."""
    words = collections.Counter()
    for text in texts:
        for word in text.replace(" ", " ▁").split(" "):
            words[tuple(word)] += 1
    letters = sorted({letter for word in words for letter in word})
    learnt = []
    for _ in range(merges):
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = max(sorted(pairs), key=pairs.get)
        learnt.append(best)
        merged = collections.Counter()
        for word, count in words.items():
            new = []
            for piece in word:
                # Pairs that overlap are merged from the left.
                if new and (new[-1], piece) == best:
                    new[-1] += piece
                else:
                    new.append(piece)
            merged[tuple(new)] += count
        words = merged
    return letters, learnt
