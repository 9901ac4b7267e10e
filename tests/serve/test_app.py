"""The service answers as `thawnet predict` does, and refuses in one sentence."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.awaiting import wait_until
from support.photos import DISPLAY_P3, encoded, profile_of
from support.service import FORM, PNG, Service, form, picture, served
from thawnet.bundle.model import Model, load
from thawnet.image.decode import SUFFIXES
from thawnet.image.heic import add_heic
from thawnet.serve import schema
from thawnet.serve.intake import Limits
from thawnet.serve.metrics import Counts
from thawnet.serve.workers import Worker
from thawnet.webpage.facts import EXAMPLES, STATIC


def test_one_image_as_the_body(service: Service) -> None:
    reply = service.ask("POST", "/predict?top_k=2", picture("green"), PNG)
    assert reply.status == 200
    (image,) = reply.json["images"]
    assert image["image"] is None
    assert image["predictions"][0]["class"] == "green"
    assert len(image["predictions"]) == 2
    assert image["unfamiliar"] is False
    assert reply.json["milliseconds"] > 0


def test_many_images_are_answered_in_their_order_the_broken_ones_too(service: Service) -> None:
    parts = (("r.png", picture("red")), ("x.png", b"no"), ("b.jpg", picture("blue", (9, 70))))
    reply = service.ask("POST", "/predict", form(*parts * 20), FORM)  # several batches
    assert reply.status == 200
    images = iter(reply.json["images"])
    for red, broken, blue in zip(images, images, images, strict=True):
        assert (red["image"], red["predictions"][0]["class"]) == ("r.png", "red")
        assert broken == {"image": "x.png", "error": "not an image in a known format"}
        assert (blue["image"], blue["predictions"][0]["class"]) == ("b.jpg", "blue")


def test_probabilities_are_those_of_predict(service: Service, model: Model) -> None:
    data = picture("red", (70, 50), "JPEG")
    (prediction,) = model.predict([data], 6)
    (image,) = service.ask("POST", "/predict?top_k=6", data, PNG).json["images"]
    assert [guess["class"] for guess in image["predictions"]] == list(prediction.classes)
    shares = [guess["probability"] for guess in image["predictions"]]
    np.testing.assert_allclose(shares, prediction.probabilities, rtol=1e-5)


def test_explanation_comes_when_it_is_asked_for(
    bundle: Path, serving: Callable[..., Service]
) -> None:
    service = serving(load(bundle))
    plain, explained = (
        service.ask("POST", f"/predict?top_k=2&explain={flag}", picture("red", (80, 40)), PNG)
        for flag in ("false", "true")
    )
    assert "explanation" not in plain.json["images"][0]
    explanation = explained.json["images"][0]["explanation"]
    assert explanation["box"] == [0.25, 0, 0.75, 1]
    maps = np.array(explanation["maps"])
    assert maps.shape[0] == 2
    assert 0 <= maps.min() <= maps.max() <= 1


def test_requests_at_once_get_their_own_answers(serving: Callable[..., Service]) -> None:
    service = serving()

    def one(number: int) -> bool:
        colour = ("red", "green", "blue")[number % 3]
        top_k = 1 + number % 4
        reply = service.ask("POST", f"/predict?top_k={top_k}", picture(colour), PNG)
        (image,) = reply.json["images"]
        named = [guess["class"] for guess in image["predictions"]]
        return len(named) == top_k and named[0] == colour

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(96)))
    counted = service.ask("GET", "/metrics").body.decode()
    assert 'thawnet_requests_total{path="/predict",status="200"} 96.0' in counted
    assert 'thawnet_images_total{outcome="answered"} 96.0' in counted
    batches = next(
        float(line.split()[1])
        for line in counted.splitlines()
        if line.startswith("thawnet_batch_images_count")
    )
    assert batches < 96  # some were computed together


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "sentence"),
    [
        ("/predict", b"words", PNG, 422, "not an image in a known format"),
        ("/predict", b"", PNG, 422, "the file is empty"),
        ("/predict", b"x", {"Content-Type": "text/plain"}, 415, "Content-Type is 'text/plain'"),
        ("/predict", b"x", {}, 415, "Content-Type is nothing"),
        ("/predict?top_k=0", b"x", PNG, 422, "top_k is '0'; it must be 1 to 1000"),
        ("/predict?top_k=a", b"x", PNG, 422, "top_k is 'a'; it must be"),
        ("/predict?topk=3", b"x", PNG, 422, "'topk' is unknown; did you mean 'top_k'?"),
        ("/predict", b"x", {"Content-Type": "multipart/form-data"}, 400, "without a boundary"),
        ("/predict", b"x", FORM, 400, "the form cannot be read"),
        ("/predict", form(), FORM, 400, "holds no file"),
        ("/predict", form((None, b"a field")), FORM, 400, "holds no file"),
        ("/predict", form(("a.png", b"x"))[:-20], FORM, 400, "last boundary is missing"),
        ("/elsewhere", b"x", PNG, 404, "nothing at this address"),
        ("/model", b"x", PNG, 405, "POST is not allowed"),
    ],
)
def test_wrong_request_is_refused_in_a_sentence(
    service: Service,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    sentence: str,
) -> None:
    reply = service.ask("POST", path, body, headers)
    assert reply.status == status
    said = reply.json
    assert sentence in (said["error"] if "error" in said else said["images"][0]["error"])
    assert "Traceback" not in reply.body.decode()


def test_too_many_pixels_are_refused_with_their_memory(service: Service) -> None:
    image = Image.new("1", (9000, 9000))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    reply = service.ask("POST", "/predict", stream.getvalue(), PNG)
    assert reply.status == 422
    assert "would take 243 MB" in reply.json["images"][0]["error"]


def test_answers_carry_the_security_headers(service: Service) -> None:
    for path in ("/", "/model", "/nothing", "/static/page.css"):
        headers = service.ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_other_sites_and_other_names_are_refused(service: Service) -> None:
    foreign = service.ask("POST", "/predict", b"x", {**PNG, "Origin": "http://elsewhere.example"})
    assert foreign.status == 403
    rebound = service.ask("GET", "/model", headers={"Host": "elsewhere.example"})
    assert rebound.status == 403
    own = {"Origin": f"http://localhost:{service.port}", "Host": f"localhost:{service.port}"}
    assert service.ask("GET", "/model", headers=own).status == 200


def test_token_is_asked_for_but_by_the_page_that_asks_for_it(
    serving: Callable[..., Service],
) -> None:
    service = serving(token="sesame")
    wait_until(lambda: service.ask("GET", "/readyz").status == 200, 30)
    for path in ("/", "/docs", "/healthz", "/readyz", "/static/page.js"):
        assert service.ask("GET", path).status == 200
        head = service.ask("HEAD", path)  # as proxies ask
        assert (head.status, head.body) == (200, b"")
    for path in ("/model", "/metrics", "/examples/a.jpg"):
        assert service.ask("GET", path).status == 401
        wrong = {"Authorization": "Bearer sesam"}
        assert service.ask("GET", path, headers=wrong).status == 401
    refused = service.ask("POST", "/predict", picture("red"), PNG)
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    right = {"Authorization": "Bearer sesame"}
    assert service.ask("GET", "/model", headers=right).status == 200
    assert service.ask("POST", "/predict", picture("red"), {**PNG, **right}).status == 200


def test_model_is_described_without_paths(service: Service, model: Model) -> None:
    reply = service.ask("GET", "/model")
    assert reply.json["classes"] == list(model.classes)
    assert reply.json["flags_unfamiliar"] is True
    assert reply.json["explains"] is False
    assert str(model.path) not in reply.body.decode()
    assert reply.json["limits"]["body_bytes"] == Limits().body


def test_openapi_describes_what_is_there(service: Service) -> None:
    said = service.ask("GET", "/openapi.json").json
    assert set(said["paths"]) == {"/predict", "/model", "/healthz", "/readyz", "/metrics"}
    assert "security" not in said
    answers = said["paths"]["/predict"]["post"]["responses"]
    assert {"200", "400", "401", "403", "408", "413", "415", "422", "503"} <= set(answers)
    assert "example" in json.dumps(answers["200"])


def test_openapi_of_a_service_with_a_token_says_what_asks_for_it(
    serving: Callable[..., Service],
) -> None:
    right = {"Authorization": "Bearer sesame"}
    said = serving(token="sesame").ask("GET", "/openapi.json", headers=right).json
    assert said["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert said["security"] == [{"token": []}]
    free = [path for path, kinds in said["paths"].items() if kinds.get("get", {}).get("security")]
    assert free == []
    assert said["paths"]["/readyz"]["get"]["security"] == []
    assert "security" not in said["paths"]["/predict"]["post"]


def test_docs_tell_every_address_parameter_and_status(service: Service) -> None:
    page = service.ask("GET", "/docs").body.decode()
    said = service.ask("GET", "/openapi.json").json
    asked = said["paths"]["/predict"]["post"]
    named = [f"<code>{path}</code>" for path in said["paths"]]
    named += [f"<code>{parameter['name']}" for parameter in asked["parameters"]]
    named += [f"<tr><th>{status}</th>" for status in asked["responses"]]
    assert [name for name in named if name not in page] == []
    (example,) = re.findall(r'<code id="answer">(.*?)</code>', page, re.DOTALL)
    assert json.loads(example) == schema.EXAMPLE
    schema.Answers.model_validate(schema.EXAMPLE)
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert addresses
    assert [
        at
        for at in addresses
        if service.ask("GET", f"/{at[2:] if at == './' else at}").status != 200
    ] == []


def test_service_is_ready_once_a_process_has_its_network_open(
    serving: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(Worker, "_opened", lambda *_answer: None)
        early = serving()
        assert early.ask("GET", "/healthz").status == 200
        reply = early.ask("GET", "/readyz")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "no process has the network open yet" in reply.json["error"]
    service = serving()
    wait_until(lambda: service.ask("GET", "/readyz").status == 200, 30)


def test_every_answer_is_counted_and_logged_if_asked_for(serving: Callable[..., Service]) -> None:
    lines: list[str] = []
    service = serving(token="sesame", log=lines.append)
    right = {"Authorization": "Bearer sesame"}
    for method, path, headers, status in (
        ("POST", "/predict", PNG, 401),
        ("POST", "/predict?top_k=3", {**PNG, **right, "Origin": "http://elsewhere.example"}, 403),
        ("GET", "/secret%0A%1b[31m", right, 404),
        ("HEAD", "/healthz", {}, 200),
        ("GET", f"/{'long' * 100}", right, 404),
    ):
        assert (
            service.ask(method, path, b"x" if method == "POST" else None, headers).status == status
        )
    counted = service.ask("GET", "/metrics", headers=right).body.decode()
    for path, status, times in (
        *(("/predict", 401, 1), ("/predict", 403, 1), ("other", 404, 2), ("/healthz", 200, 1)),
    ):
        name = f'thawnet_requests_total{{path="{path}",status="{status}"}}'
        assert f"{name} {times}.0" in counted
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert re.fullmatch(rf"{time} 127\.0\.0\.1 POST /predict 401 \d+ ms", lines[0])
    assert re.fullmatch(rf"{time} \S+ GET /secret%0A%1b\[31m 404 \d+ ms", lines[2])
    assert "HEAD /healthz 200" in lines[3]
    assert len(lines[4]) < 300
    assert not any("sesame" in line for line in lines)


def test_failure_inside_is_a_sentence_without_details_and_the_next_is_served(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_arguments: object) -> None:
        raise RuntimeError("/secret/path")

    with monkeypatch.context() as broken:
        broken.setattr(Worker, "predict", fail)
        reply = service.ask("POST", "/predict", picture("red"), PNG)
    assert reply.status == 500
    assert reply.json == {"error": "this failed here; the service's log says why"}
    assert caplog.messages[0] == "a batch failed: RuntimeError('/secret/path')"
    assert service.ask("POST", "/predict", picture("red"), PNG).status == 200


def test_examples_are_those_given_and_nothing_else(
    serving: Callable[..., Service], tmp_path: Path
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(picture("red"))
    (tmp_path / "secret.txt").write_text("x")
    service = serving(examples={"one.png": file})
    assert service.ask("GET", "/model").json["examples"] == ["one.png"]
    assert service.ask("GET", "/examples/one.png").body == file.read_bytes()
    for path in ("/examples/secret.txt", "/examples/..%2fsecret.txt", "/static/../app.py"):
        assert service.ask("GET", path).status == 404


def test_page_takes_the_files_that_the_service_reads() -> None:
    script = (STATIC / "sources.js").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"const IMAGE = /(.+)/i;", script)
    named = re.compile(pattern, re.IGNORECASE)
    assert [suffix for suffix in sorted(SUFFIXES) if not named.search(f"a{suffix}")] == []
    assert not named.search("a.txt")


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JPEG", "PNG"])
def test_photo_of_any_form_gets_one_answer_from_library_and_service(
    kind: str, embedded_model: Model
) -> None:
    if kind == "HEIF":
        add_heic()
    photo = Image.open(EXAMPLES / "coffee.jpg").convert("RGB").resize((900, 300))
    content = encoded(photo, kind, icc_profile=profile_of(*DISPLAY_P3))
    (answer,) = embedded_model.predict([content])
    (plain,) = embedded_model.predict([encoded(photo, kind)])
    assert answer.probabilities[0] != plain.probabilities[0]  # the profile is used
    with served(embedded_model) as service:
        (said,) = service.ask("POST", "/predict", content, PNG).json["images"]
    assert said["predictions"][0]["class"] == answer.classes[0]
    assert said["predictions"][0]["probability"] == pytest.approx(answer.probabilities[0], abs=1e-4)


def asked(service: Service, **headers: str) -> int:
    return service.ask("GET", "/model", headers=headers).status


def test_names_and_sites_are_those_of_this_machine_the_public_address_and_no_other(
    embedded_model: Model,
) -> None:
    public = "https://photos.example.org"
    with served(embedded_model, public=public, origins=("https://app.example.com",)) as service:
        here = f"127.0.0.1:{service.port}"
        for host in (here, "photos.example.org", "localhost"):
            assert asked(service, Host=host) == 200
            assert asked(service, Host=host, Origin=public) == 200
            assert asked(service, Host=host, Origin="https://app.example.com") == 200
            for origin in ("https://evil.example", "http://photos.example.org", "null", "://"):
                assert asked(service, Host=host, Origin=origin) == (
                    200 if origin == f"http://{host}" else 403
                )
        for host in ("evil.example", "photos.example.org.evil.example"):  # DNS rebinding
            assert asked(service, Host=host) == 403
        reply = service.ask("GET", "/model", headers={"Host": "evil.example"})
        assert reply.json["error"].endswith("behind a proxy, start it with --public-url")


def test_sites_that_are_allowed_get_cors_headers_and_others_none(embedded_model: Model) -> None:
    with served(embedded_model, origins=("https://app.example.com",)) as service:
        wish = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        for origin, allowed in (("https://app.example.com", True), ("https://evil.example", False)):
            reply = service.ask("OPTIONS", "/predict", headers={"Origin": origin, **wish})
            assert (reply.headers.get("access-control-allow-origin") == origin) == allowed
    with served(embedded_model) as service:
        reply = service.ask("GET", "/model")
        assert not any(name.startswith("access-control") for name in reply.headers)


def test_an_unexpected_failure_is_answered_with_the_headers_of_any_answer(
    embedded_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_counts: Counts) -> bytes:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(Counts, "text", fail)
    site = "https://app.example.com"
    with served(embedded_model, origins=(site,)) as service:
        reply = service.ask("GET", "/metrics", headers={"Origin": site})
    assert reply.status == 500
    assert reply.json == {"error": "this failed here; the service's log says why"}
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["access-control-allow-origin"] == site
