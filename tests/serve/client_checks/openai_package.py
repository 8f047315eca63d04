"""Checks the server with the package `openai`."""

import asyncio
import base64
import json
import urllib.request

import openai

from client_checks.harness import near, raises, same, tensor
from client_checks.pictures import compressed_pixels, left_half, photo, redrawn

TEXTS = ["一只猫", "a cat on a red sofa", "un gato", ""]
# The package sends it whether or not the server wants one.
NO_KEY = "none"


def check(server, report):
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=server.key or NO_KEY, max_retries=0)
    checks = [models, vectors_in_base64, vectors_as_numbers, one_text, token_ids, dimensions, concurrent]
    checks += [images, several_images, image_formats, events, edit, edit_of_a_list, edit_events]
    checks += [unused_fields, refusals, request_ids]
    if server.key:
        checks.append(wrong_key)
    report.run("openai", checks, server, client)


def models(_, client):
    """models are listed and described."""
    found = client.models.list().data
    assert "emoji" in [model.id for model in found], found
    same((client.models.retrieve("emoji").id, found[0].object), ("emoji", "model"))
    error = raises(openai.NotFoundError, lambda: client.models.retrieve("none"))
    same(error.code, "model_not_found")


def vectors_in_base64(server, client):
    """vectors in base64, as the package asks by default, are those of the command."""
    found = client.embeddings.create(model="emoji", input=TEXTS)
    near([item.embedding for item in found.data], server.text_vectors(*TEXTS))
    same([item.index for item in found.data], list(range(len(TEXTS))))
    assert found.usage.prompt_tokens == found.usage.total_tokens > len(TEXTS), found.usage


def vectors_as_numbers(server, client):
    """vectors as numbers are those of the command."""
    found = client.embeddings.create(model="emoji", input=TEXTS, encoding_format="float")
    near([item.embedding for item in found.data], server.text_vectors(*TEXTS))


def one_text(server, client):
    """a text alone has one vector."""
    found = client.embeddings.create(model="emoji", input=TEXTS[0])
    near([item.embedding for item in found.data], server.text_vectors(TEXTS[0]))


def token_ids(server, client):
    """token ids have the vector of their text."""
    body = json.dumps({"prompts": [TEXTS[1]]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key or NO_KEY}"}
    request = urllib.request.Request(f"{server.address}/v1/hidden_states", body, headers)
    with urllib.request.urlopen(request) as answer:
        file = answer.read()
    ids, mask = tensor(file, "input_ids")[0], tensor(file, "attention_mask")[0]
    ids = [token for token, is_token in zip(ids, mask) if is_token]
    for form in (ids, [ids, ids]):
        found = client.embeddings.create(model="emoji", input=form)
        near([item.embedding for item in found.data], server.text_vectors(TEXTS[1]) * len(found.data))


def dimensions(_, client):
    """vectors are not cut."""
    size = len(client.embeddings.create(model="emoji", input="a").data[0].embedding)
    found = client.embeddings.create(model="emoji", input="a", dimensions=size)
    same(len(found.data[0].embedding), size)
    create = lambda: client.embeddings.create(model="emoji", input="a", dimensions=size // 2)
    same(raises(openai.BadRequestError, create).param, "dimensions")


def concurrent(server, client):
    """requests at the same time get their own vectors."""
    texts = [f"{number} 只猫" for number in range(32)]

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as one:
            requests = [one.embeddings.create(model="emoji", input=text) for text in texts]
            return await asyncio.gather(*requests)

    found = asyncio.run(all_of_them())
    near([answer.data[0].embedding for answer in found], server.text_vectors(*texts))


def images(server, client):
    """an image is the command's file, to the byte."""
    options = {"seed": 7, "steps": 5, "negative_prompt": "blue", "guidance_scale": 2.0}
    options["scheduler"] = "DPM++ 2M Karras"
    found = client.images.generate(model="emoji", prompt="一只猫", size="64x72", extra_body=options)
    arguments = ["--seed", 7, "--steps", 5, "--negative-prompt", "blue", "--guidance-scale", 2.0]
    arguments += ["--scheduler", "DPM++ 2M Karras", "--width", 64, "--height", 72, "--scale", 1]
    same(base64.b64decode(found.data[0].b64_json), server.generated("一只猫", *arguments))
    assert found.created > 1_600_000_000, found.created


def several_images(server, client):
    """several images have consecutive seeds."""
    found = client.images.generate(model="emoji", prompt="a cat", n=2, extra_body={"seed": 3, "steps": 4})
    expected = [server.generated("a cat", "--seed", seed, "--steps", 4) for seed in (3, 4)]
    same([base64.b64decode(item.b64_json) for item in found.data], expected)


def image_formats(_, client):
    """images come as JPEG and WebP, and as a URL that holds them."""
    for name, begins in (("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
        found = client.images.generate(
            model="emoji", prompt="a cat", response_format="url", output_format=name, extra_body={"steps": 1}
        )
        head, encoded = found.data[0].url.split(",")
        same((head, base64.b64decode(encoded)[: len(begins)]), (f"data:image/{name};base64", begins))


def events(server, client):
    """a stream has previews, and ends with the command's image."""
    options = {"seed": 7, "steps": 4}
    stream = client.images.generate(
        model="emoji", prompt="a cat", stream=True, partial_images=2, extra_body=options
    )
    found = list(stream)
    check_events(found, "image_generation")
    same(base64.b64decode(found[-1].b64_json), server.generated("a cat", "--seed", 7, "--steps", 4))


def check_events(found, kind):
    kinds = [event.type for event in found]
    assert kinds[-1] == f"{kind}.completed" and f"{kind}.partial_image" in kinds, kinds
    partial = [event for event in found if event.type == f"{kind}.partial_image"]
    for event in partial:
        assert base64.b64decode(event.b64_json).startswith(b"\x89PNG"), event
    # What the package says that these events have.
    for event in (found[-1], partial[0]):
        missing = set(type(event).model_fields) - event.model_fields_set - {"usage", "safety_identifier"}
        assert not missing, f"{event.type} has no {', '.join(sorted(missing))}"
    same(sum(event.type == f"{kind}.completed" for event in found), 1)



EDIT = {"seed": 5, "steps": 6, "strength": 0.7}


def drawn_edit(server, **files):
    options = ["--seed", 5, "--steps", 6, "--strength", 0.7]
    return compressed_pixels(redrawn(server, files, "a cat", *options))


def edit(server, client):
    """an edit under a mask has the command's pixels."""
    files = {"image": photo(), "mask": left_half()}
    found = client.images.edit(model="emoji", prompt="a cat", extra_body=EDIT, **files)
    pixels = compressed_pixels(base64.b64decode(found.data[0].b64_json))
    same(pixels, drawn_edit(server, image=photo(), mask=left_half()))


def edit_of_a_list(server, client):
    """an edit of a list with one image has the command's pixels."""
    found = client.images.edit(model="emoji", prompt="a cat", image=[photo()], extra_body=EDIT)
    same(compressed_pixels(base64.b64decode(found.data[0].b64_json)), drawn_edit(server, image=photo()))
    edit_two = lambda: client.images.edit(model="emoji", prompt="a cat", image=[photo(), photo()])
    raises(openai.BadRequestError, edit_two)


def edit_events(server, client):
    """a stream of an edit has the events of edits."""
    stream = client.images.edit(
        model="emoji", prompt="a cat", image=photo(), stream=True, partial_images=1, extra_body=EDIT
    )
    found = list(stream)
    check_events(found, "image_edit")
    same(compressed_pixels(base64.b64decode(found[-1].b64_json)), drawn_edit(server, image=photo()))


def unused_fields(server, client):
    """fields of OpenAI's that mean nothing here are accepted."""
    options = {"user": "a", "safety_identifier": "a", "quality": "high", "background": "opaque"}
    options["moderation"] = "low"
    body = {"seed": 7, "steps": 4}
    found = client.images.generate(model="emoji", prompt="a cat", style="vivid", extra_body=body, **options)
    same(base64.b64decode(found.data[0].b64_json), server.generated("a cat", "--seed", 7, "--steps", 4))
    del options["moderation"]
    options["input_fidelity"] = "high"
    client.images.edit(model="emoji", prompt="a cat", image=photo(), extra_body=EDIT, **options)
    client.embeddings.create(model="emoji", input="a", user="a")


def refusals(_, client):
    """what cannot be answered is refused by name."""
    draw = lambda **fields: lambda: client.images.generate(**{"model": "emoji", "prompt": "a cat", **fields})
    for fields, field in (
        ({"n": 0}, "n"),
        ({"size": "65x64"}, "size"),
        ({"response_format": "b64"}, "response_format"),
        ({"extra_body": {"scheduler": "none"}}, "scheduler"),
        ({"extra_body": {"steps": -1}}, "steps"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ):
        error = raises(openai.BadRequestError, draw(**fields))
        assert field in (error.param or error.message) and error.type == "invalid_request_error", (fields, error)
    raises(openai.NotFoundError, draw(model="dall-e-3"))
    raises(openai.BadRequestError, lambda: client.embeddings.create(model="emoji", input=[]))
    edit_text = lambda: client.images.edit(model="emoji", prompt="a cat", image=("a.png", b"text"))
    same(raises(openai.BadRequestError, edit_text).param, "image")


def request_ids(_, client):
    """answers carry an id, which a request can choose."""
    assert client.models.list()._request_id
    found = client.models.with_raw_response.list(extra_headers={"x-request-id": "of-the-client"})
    same(found.headers["x-request-id"], "of-the-client")


def wrong_key(server, client):
    """another key is refused."""
    other = client.with_options(api_key=f"{server.key}?")
    error = raises(openai.AuthenticationError, other.models.list)
    same(error.code, "invalid_api_key")
