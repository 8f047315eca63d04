"""`evaluation.json` and `evaluation.safetensors`: retrieval and zero-shot scores by the package `clip-benchmark`.

Also needs: ``pip install --target overlay --no-deps clip-benchmark==1.6.2 scikit-learn joblib threadpoolctl cloudpickle narwhals``.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

from common import normal, save_json, save_tensors

PICTURES, WIDTH, CLASSES, TEMPLATES = 60, 12, 7, 3


def accuracy(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...]) -> list[float]:
    """The package's function, with a dimension removed: numpy 2.4 no longer converts arrays of one value to numbers."""
    nearest = output.topk(max(topk), 1, True, True)[1].t()
    correct = nearest.eq(target.view(1, -1).expand_as(nearest))
    return [correct[:k].reshape(-1).float().sum().item() / len(target) for k in topk]


zeroshot_classification.accuracy = accuracy


class Embeddings:
    """A model whose images and texts are already vectors."""

    encode_image = staticmethod(lambda vectors: vectors)
    encode_text = staticmethod(lambda vectors: vectors)


def retrieval(images: torch.Tensor, texts: torch.Tensor, owners: list[int]) -> dict:
    of_picture = [[text for text, owner in zip(texts, owners) if owner == picture] for picture in range(PICTURES)]
    batches = [(images[start : start + 16], of_picture[start : start + 16]) for start in range(0, PICTURES, 16)]
    return zeroshot_retrieval.evaluate(
        Embeddings, batches, torch.stack, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )


def zero_shot(images: torch.Tensor, texts: torch.Tensor, targets: torch.Tensor) -> dict:
    """Compute zero-shot scores. Class names are numbers, and templates prepend their own number."""
    loader = [(images[:25], targets[:25]), (images[25:], targets[25:])]
    loader = type("Loader", (list,), {})(loader)
    loader.dataset = SimpleNamespace(classes=[str(number) for number in range(len(texts))])
    templates = [f"{template} {{c}}" for template in range(TEMPLATES)]

    def tokenize(names: list[str]) -> torch.Tensor:
        return torch.stack([texts[int(name.split()[1]), int(name.split()[0])] for name in names])

    return zeroshot_classification.evaluate(
        Embeddings, loader, tokenize, loader.dataset.classes, templates, "cpu", amp=False
    )


def make(output: Path) -> None:
    images = normal("evaluation.images", PICTURES, WIDTH)
    owners = [picture for picture in range(PICTURES) for _ in range(1 + picture % 5)]
    texts = images[owners] + 1.3 * normal("evaluation.texts", len(owners), WIDTH)
    first = [owners.index(picture) for picture in range(PICTURES)]

    class_texts = normal("evaluation.classes", CLASSES, TEMPLATES, WIDTH) + 2 * normal("evaluation.names", CLASSES, 1, WIDTH)
    # A random number of images per class, and none of the last class.
    targets = torch.tensor([(number * number + number // 7) % (CLASSES - 1) for number in range(PICTURES)])
    shown = class_texts.mean(dim=1)[targets] + 2.5 * normal("evaluation.shown", PICTURES, WIDTH)

    golden = {
        "retrieval": retrieval(images, texts, owners),
        "retrieval_of_one": retrieval(images, texts[first], list(range(PICTURES))),
        "zero_shot": zero_shot(shown, class_texts, targets),
        "zero_shot_of_four": zero_shot(shown[targets < 4], class_texts[:4], targets[targets < 4]),
    }
    golden["zero_shot_of_four"].pop("acc5")  # NaN, which JSON lacks
    print(f"  {golden}")
    save_json(output / "evaluation.json", golden)
    tensors = {"images": images, "texts": texts, "owners": torch.tensor(owners), "class_texts": class_texts}
    save_tensors(output / "evaluation.safetensors", tensors | {"targets": targets, "shown": shown})
