"""Texts and images to vectors, against the golden values of the Rust tests and against themselves."""

import pickle

import numpy as np
import pytest
from PIL import Image

import altdiffusion
from conftest import GOLDEN, MODULE_TOLERANCE, golden_json, golden_tensors, relative_error


@pytest.mark.parametrize("model", ["clip", "chinese_clip"])
def test_texts_have_the_vectors_of_transformers(model):
    embedder = altdiffusion.Embedder(GOLDEN / "dual_encoders" / model)
    golden = golden_tensors(f"dual_encoders/{model}/golden.safetensors")
    vectors = embedder.embed_texts(golden_json(f"dual_encoders/{model}/texts.json"))
    assert vectors.dtype == np.float32 and vectors.shape[1] == embedder.dim
    assert relative_error(vectors, golden["text_embeds"]) <= MODULE_TOLERANCE
    logits = embedder.similarity(golden["image_embeds"], vectors)
    assert relative_error(logits, golden["logits_per_image"]) <= MODULE_TOLERANCE


def test_int8_is_near_f32():
    texts = golden_json("dual_encoders/clip/texts.json")
    exact = altdiffusion.Embedder(GOLDEN / "dual_encoders" / "clip", device="cpu").embed_texts(texts)
    embedder = altdiffusion.Embedder(GOLDEN / "dual_encoders" / "clip", dtype="int8", device="cpu")
    error = relative_error(embedder.embed_texts(texts), exact)
    assert 1e-4 < error < 0.2
    assert "dtype='int8'" in repr(embedder)


def test_languages_meet_in_one_space(embedder):
    cat, katze, engine = embedder.embed_texts(["一只猫", "Katze", "消防车"], normalize=True)
    assert cat @ katze > cat @ engine
    assert np.isclose(np.linalg.norm(cat), 1, atol=1e-6)
    assert embedder.embed_texts([]).shape == (0, embedder.dim)


def test_streams_give_the_same_vectors(embedder):
    # More than a window of 2048.
    texts = [f"{number} 猫" for number in range(2100)]
    expected = embedder.embed_texts(texts)
    for size, count in ((1, 20), (700, 2100), (10_000, 2100)):
        parts = list(embedder.stream_texts(iter(texts[:count]), batch_size=size))
        assert max(map(len, parts)) <= size
        np.testing.assert_array_equal(np.concatenate(parts), expected[:count])


def test_a_stream_reads_only_what_it_needs(embedder):
    def endless():
        while True:
            yield "a cat"

    stream = embedder.stream_texts(endless(), batch_size=100)
    assert next(stream).shape == (100, embedder.dim)
    stream.close()


def test_images_may_have_any_form(embedder, tmp_path):
    pixels = (np.arange(40 * 50 * 3) % 251).astype(np.uint8).reshape(40, 50, 3)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    forms = [str(path), path, path.read_bytes(), Image.open(path), Image.fromarray(pixels), pixels, pixels / 255]
    vectors = embedder.embed_images(forms)
    for vector in vectors[1:]:
        np.testing.assert_array_equal(vector, vectors[0])
    grey = embedder.embed_images([pixels[:, :, 0], pixels[:, :, :1], Image.fromarray(pixels[:, :, 0])])
    np.testing.assert_array_equal(grey[0], grey[1])
    np.testing.assert_array_equal(grey[0], grey[2])
    parts = list(embedder.stream_images((form for form in forms), batch_size=3))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), vectors)


def test_images_may_be_tensors(embedder):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pixels = (torch.arange(20 * 30 * 3) % 256).to(torch.uint8).reshape(20, 30, 3)
    halves = (pixels / 255).round()
    images = [pixels, pixels.numpy(), halves.bfloat16(), halves.requires_grad_(), halves.detach().numpy()]
    vectors = embedder.embed_images(images)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[2:4], vectors[[4, 4]])
    logits = embedder.similarity(torch.tensor(vectors).requires_grad_(), torch.tensor(vectors).bfloat16())
    assert logits.shape == (5, 5)


def test_transparent_images_get_the_background(tmp_path):
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    path = tmp_path / "image.png"
    image.save(path)
    palette = image.quantize()
    white = Image.new("RGB", (20, 20), "white")
    for background, same in (("white", True), ("none", False)):
        embedder = altdiffusion.Embedder(background=background)
        of_file, of_image, plain, of_palette = embedder.embed_images([path, image, white, palette])
        np.testing.assert_array_equal(of_file, of_image)
        assert np.array_equal(of_image, plain) == same
        assert np.array_equal(of_palette, plain) == same


def test_what_cannot_be_read_is_skipped_in_its_place(embedder, tmp_path):
    good, bad = Image.new("RGB", (9, 9), "red"), tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(altdiffusion.FileError, match="bad.png"):
        embedder.embed_images([good, bad])
    with pytest.raises(FileNotFoundError):
        embedder.embed_images([tmp_path / "none.png"])
    images = [good, bad, b"", np.zeros((3, 9, 9, 9)), tmp_path / "none.png", good]
    with pytest.warns(altdiffusion.SkippedWarning, match="and 3 more"):
        vectors = embedder.embed_images(images, on_error="skip")
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, True, True, False]
    np.testing.assert_array_equal(vectors[0], vectors[-1])

    with pytest.raises(ValueError, match="expected a text, found None"):
        embedder.embed_texts(["a", None])
    with pytest.warns(altdiffusion.SkippedWarning):
        vectors = embedder.embed_texts(["a", None, float("nan"), "b"], on_error="skip")
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, False]


def test_what_pillow_cannot_read_is_an_error_of_the_file(embedder, tmp_path):
    path = tmp_path / "cut.jpg"
    Image.effect_noise((99, 99), 50).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(altdiffusion.FileError, match="cut.jpg: "):
        embedder.embed_images([Image.open(path)])


def test_wide_numbers_of_pillow_are_not_clipped(embedder):
    pixels = np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9)
    found, expected = embedder.embed_images([Image.fromarray(pixels), pixels])
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(altdiffusion.InputError, match="found int32"):
        embedder.embed_images([Image.fromarray((pixels * 65535).astype(np.int32))])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.embed_texts("a cat"), "texts: expected a list, found one str"),
        (lambda e: e.embed_texts(["a cat", 7]), "text 1: expected a text, found int"),
        (lambda e: e.embed_images("cat.png"), "images: expected a list"),
        (lambda e: e.embed_images([7]), "image 0: expected a path, bytes, a Pillow image or an array, found int"),
        (lambda e: e.embed_images([np.full((9, 9, 3), 2.0)]), "from 0 to 1"),
        (lambda e: e.embed_texts(["a"], on_error="ignore"), "on_error"),
        (lambda e: list(e.stream_texts(["a"], batch_size=0)), "batch_size 0"),
        (lambda e: e.classify([], ["a"], templates=["no place"]), "where the label belongs"),
        (lambda e: e.classify([], "cat"), "expected lists"),
        (lambda e: e.similarity(np.zeros((1, 3)), np.zeros((1, 128))), r"images: expected an array \(items, 128\), found"),
        (lambda e: e.similarity(np.zeros((1, 128)), np.zeros(128)), r"texts: expected an array \(items, 128\), found"),
        (lambda e: altdiffusion.Embedder(dtype="int4"), "dtype int4: expected f32, f16, bf16 or int8"),
        (lambda e: altdiffusion.Embedder(device="tpu"), "device tpu: expected auto, cpu"),
        (lambda e: altdiffusion.Embedder(background="blueish"), "background blueish"),
        (lambda e: altdiffusion.Embedder(background=5), "background: expected a text, found int"),
        (lambda e: altdiffusion.Embedder(max_pixels=-1), "max_pixels -1: expected a number from 1"),
        (lambda e: altdiffusion.Embedder(max_pixels=2**64), "max_pixels 18446744073709551616: expected a number from 1"),
        (lambda e: altdiffusion.Embedder(max_pixels="9"), "max_pixels '9': expected a whole number"),
        (lambda e: altdiffusion.Embedder(5), "name: expected a name or a path, found int"),
        (lambda e: altdiffusion.Embedder(b"model"), "name: expected a name or a path, found bytes"),
        (lambda e: altdiffusion.Embedder("a/b", revision=5), "revision: expected a text, found int"),
        (lambda e: e.classify([], [1]), "labels 0: expected a text, found int"),
        (lambda e: e.classify([], 1), "labels: expected texts, found int"),
        (lambda e: e.classify([], ["a"], templates=[None]), "templates 0: expected a text, found NoneType"),
    ],
)
def test_mistakes_are_errors_in_one_line(embedder, call, message):
    with pytest.raises(altdiffusion.Error, match=message) as raised:
        call(embedder)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_a_model_that_is_not_there_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="empty: no config.json") as raised:
        altdiffusion.Embedder(tmp_path / "empty")
    assert isinstance(raised.value, altdiffusion.FileError)
    with pytest.raises(altdiffusion.Error):
        altdiffusion.Embedder("nobody/nothing")


def test_images_are_labelled(embedder):
    image = GOLDEN / "image_formats" / "files"
    images = sorted(path for path in image.iterdir() if path.suffix == ".png")[:3]
    probabilities = embedder.classify(images, ["猫", "狗", "汽车"], templates=["{}", "一张{}的照片"])
    assert probabilities.shape == (len(images), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert embedder.classify([], ["猫"]).shape == (0, 1)


def test_siglip_asks_about_each_label_alone():
    embedder = altdiffusion.Embedder(GOLDEN / "siglip" / "base")
    image, labels = np.zeros((20, 20, 3), np.uint8), ["a cat", "a dog"]
    logits = embedder.similarity(embedder.embed_images([image]), embedder.embed_texts(labels))
    np.testing.assert_allclose(embedder.classify([image], labels), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_a_pickle_loads_the_model_again(tmp_path, monkeypatch):
    monkeypatch.chdir(GOLDEN / "dual_encoders")
    embedder = altdiffusion.Embedder("clip", dtype=np.float16)
    assert repr(embedder) == f"Embedder('{GOLDEN / 'dual_encoders' / 'clip'}', dtype='f16', device='auto')"
    content = pickle.dumps(embedder)
    assert len(content) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.embed_texts(["a cat"]), embedder.embed_texts(["a cat"]))
