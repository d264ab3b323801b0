"""Each bad input ends the start with a line that names the file and says what to do."""

from __future__ import annotations

import ctypes
import os
import re
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from framegate import Config, _http
from framegate.errors import CertificateError, ConfigError
from server_process import Launch
from tls.apps import app
from tls.authority import DAY, Authority, Issued, key_pem, now, openssl
from tls.conftest import ServeTls


def context(**options: Any) -> Any:
    return _http.TlsContext(Config(**options))


@pytest.fixture
def issued(authority: Authority) -> Issued:
    return authority.issue("localhost")


@pytest.fixture
def files(issued: Issued, tmp_path: Path) -> dict[str, str]:
    return issued.write(tmp_path)


def refused(problem: str, /, **options: Any) -> CertificateError:
    with pytest.raises(CertificateError, match=problem) as caught:
        context(**options)
    error = caught.value
    assert error.exit_code == 3
    assert error.fix, "every one says what to do"
    return error


def test_missing_file(files: dict[str, str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for name in files:
        error = refused(f"^{missing} cannot be read", **{**files, name: missing})
        assert error.cause == "no such file or directory"


def test_directory(files: dict[str, str], tmp_path: Path) -> None:
    refused("is a directory", **{**files, "ssl_keyfile": str(tmp_path)})


def test_empty_file(files: dict[str, str]) -> None:
    for path in (Path(name) for name in files.values()):
        content = path.read_bytes()
        path.write_text("\n")
        refused(f"^{path} is empty", **files)
        path.write_bytes(content)


def test_no_pem(files: dict[str, str], issued: Issued) -> None:
    path = Path(files["ssl_certfile"])
    path.write_text("hello")
    refused("holds no PEM section", **files)
    path.write_bytes(issued.certificate.public_bytes(Encoding.DER))
    assert "DER" in refused("holds no PEM section", **files).fix


def test_files_that_were_swapped(files: dict[str, str]) -> None:
    swapped = {"ssl_certfile": files["ssl_keyfile"], "ssl_keyfile": files["ssl_certfile"]}
    assert "is it the key?" in refused("holds no certificate", **swapped).fix
    refused("holds no private key", ssl_certfile=files["ssl_certfile"])


def test_damaged_certificate_is_named_with_its_line(
    files: dict[str, str], issued: Issued, authority: Authority
) -> None:
    path = Path(files["ssl_certfile"])
    lines = issued.chain_pem.decode().splitlines()
    other = authority.pem.decode().splitlines()
    other[3] = "A" * len(other[3])
    path.write_text("\n".join([*lines, "# the authority", *other]))
    line = len(lines) + 2
    refused(f"^{path} line {line}: not a certificate for TLS", **files)
    path.write_text("\n".join([*lines, *other[:-1]]))
    refused(f"^{path} line {line - 1}: the section CERTIFICATE has no end", **files)


def test_key_of_another_certificate(files: dict[str, str], authority: Authority) -> None:
    other = authority.issue("localhost")
    Path(files["ssl_keyfile"]).write_bytes(key_pem(other.key))
    error = refused("server.key does not belong to the certificate .*server.pem", **files)
    assert "first" in error.fix


def test_key_that_is_too_weak(files: dict[str, str]) -> None:
    # 1024 bits, by hand: `cryptography` makes them still, with a warning of its own.
    weak = rsa.generate_private_key(65537, 1024)
    Path(files["ssl_keyfile"]).write_bytes(key_pem(weak))
    assert "2048" in refused("line 1: the private key cannot be used", **files).fix
    odd = ec.generate_private_key(ec.SECP256K1())
    Path(files["ssl_keyfile"]).write_bytes(key_pem(odd))
    assert "P-256" in refused("line 1: the private key cannot be used", **files).fix


class TestPasswords:
    @pytest.fixture
    def encrypted(self, files: dict[str, str], issued: Issued) -> dict[str, str]:
        Path(files["ssl_keyfile"]).write_bytes(key_pem(issued.key, password="sesame"))
        return files

    def test_none(self, encrypted: dict[str, str]) -> None:
        error = refused("line 1: the key is encrypted, and there is no password", **encrypted)
        assert "FRAMEGATE_SSL_KEYFILE_PASSWORD" in error.fix
        assert "--ssl-keyfile-password-file" in error.fix

    def test_wrong(self, encrypted: dict[str, str]) -> None:
        error = refused(
            "line 1: the password does not open the key",
            **encrypted,
            ssl_keyfile_password="open up",
        )
        assert "open up" not in str(error)

    def test_right(self, serve_tls: ServeTls, encrypted: dict[str, str], tmp_path: Path) -> None:
        client = serve_tls(app, **encrypted, ssl_keyfile_password="sesame")
        assert client.get().endswith(b"hello")
        file = tmp_path / "password"
        file.write_text("sesame\n")
        client = serve_tls(app, **encrypted, ssl_keyfile_password_file=str(file))
        assert client.get().endswith(b"hello")

    def test_file_that_is_empty(self, encrypted: dict[str, str], tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_text("\n")
        refused("password has no password", **encrypted, ssl_keyfile_password_file=str(file))

    @pytest.mark.parametrize(
        "words",
        [
            ["-v2", "aes-256-cbc"],
            ["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"],
            ["-v2", "des3"],
            ["-scrypt"],
        ],
    )
    def test_keys_of_openssl(self, files: dict[str, str], words: list[str]) -> None:
        key = files["ssl_keyfile"]
        output = key + "8"
        words = ["-in", key, "-out", output, *words, "-passout", "pass:sesame"]
        openssl("pkcs8", "-topk8", *words)
        options = {**files, "ssl_keyfile": output}
        assert context(**options, ssl_keyfile_password="sesame").warnings == []

    def test_old_format(self, files: dict[str, str]) -> None:
        key = files["ssl_keyfile"]
        openssl("ec", "-in", key, "-out", key + "0", "-aes128", "-passout", "pass:sesame")
        options = {**files, "ssl_keyfile": key + "0", "ssl_keyfile_password": "sesame"}
        assert "openssl pkcs8 -topk8" in refused("old format of OpenSSL", **options).fix

    def test_it_is_never_shown(self, encrypted: dict[str, str]) -> None:
        config = Config(**encrypted, ssl_keyfile_password="sesame")
        assert "sesame" not in repr(config)
        with pytest.raises(ConfigError) as caught:
            Config(**encrypted, ssl_keyfile_password="ses\name")
        assert "ses" not in str(caught.value).replace("expected", "")

    def test_it_is_warned_of_on_the_command_line(self, encrypted: dict[str, str]) -> None:
        given = {"ssl_keyfile_password": "sesame"}
        config = Config.load(encrypted, command_line=given, environment={}, search=False)
        assert any("FRAMEGATE_SSL_KEYFILE_PASSWORD" in text for text in config.warnings)
        environment = {"FRAMEGATE_SSL_KEYFILE_PASSWORD": "sesame"}
        config = Config.load(encrypted, environment=environment, search=False)
        assert config.warnings == ()
        assert config.ssl_keyfile_password == "sesame"


def test_permission_denied(files: dict[str, str]) -> None:
    os.chmod(files["ssl_keyfile"], 0)
    config = Config(**files)
    found: list[Exception] = []

    def attempt() -> None:
        # Root may read everything; this thread is somebody else to the file system.
        if os.geteuid() == 0:
            ctypes.CDLL(None).setfsuid(65534)
        try:
            _http.TlsContext(config)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    (error,) = found
    assert isinstance(error, CertificateError)
    assert "cannot be read" in error.problem
    assert error.cause == "permission denied"
    assert "every directory above" in error.fix


class TestClientCertificates:
    def test_authorities(self, files: dict[str, str], tmp_path: Path) -> None:
        bad = tmp_path / "ca.pem"
        bad.write_bytes(Path(files["ssl_keyfile"]).read_bytes())
        refused("ca.pem holds no certificate", **files, ssl_cert_reqs=2, ssl_ca_certs=bad)

    def test_revocation_lists(
        self, files: dict[str, str], authority: Authority, tmp_path: Path
    ) -> None:
        ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
        ca.write_bytes(authority.pem)
        options = {**files, "ssl_cert_reqs": "required", "ssl_ca_certs": ca, "ssl_crl": crl}
        crl.write_bytes(authority.pem)
        refused("crl.pem holds no revocation list", **options)
        text = authority.revocation_list().decode().splitlines()
        text[1] = "A" * len(text[1])
        crl.write_text("\n".join(text))
        refused("crl.pem line 1: the revocation list is damaged", **options)
        crl.write_bytes(authority.revocation_list(next_update=now() - DAY))
        (warning,) = context(**options).warnings
        assert re.search(r"revocation list .*crl.pem has expired on \d{4}-\d\d-\d\d", warning)

    def test_empty_system_store(
        self, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        error = refused("system's store", **files, ssl_cert_reqs=2, ssl_ca_system=True)
        assert "ca-certificates" in error.fix


@pytest.mark.parametrize(
    ("dates", "warning"),
    [
        ((-9, -1), "has expired on"),
        ((1, 9), "is not valid before"),
        ((-9, 2), "expires on"),
        ((-9, 9), None),
    ],
)
def test_dates_are_warned_of(
    authority: Authority, tmp_path: Path, dates: tuple[int, int], warning: str | None
) -> None:
    start, end = (now() + number * DAY for number in dates)
    options = authority.issue("localhost", not_before=start, not_after=end).write(tmp_path)
    warnings = context(**options).warnings
    if warning is None:
        assert warnings == []
    else:
        (text,) = warnings
        assert warning in text
        assert options["ssl_certfile"] in text


def test_expired_certificate_is_served_all_the_same(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    """A client may know what it does; no server at all helps nobody."""
    issued = authority.issue("localhost", not_before=now() - 9 * DAY, not_after=now() - DAY)
    client = serve_tls(app, **issued.write(tmp_path))
    client.context.check_hostname = False
    client.context.verify_mode = ssl.CERT_NONE
    assert client.get().endswith(b"hello")


def test_certificate_without_names_is_served(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    client = serve_tls(app, **authority.issue().write(tmp_path))
    client.context.check_hostname = False
    assert client.get().endswith(b"hello")


def test_certificate_of_version_1(files: dict[str, str], issued: Issued) -> None:
    """What `openssl x509 -req` makes without extensions."""
    directory = Path(files["ssl_keyfile"]).parent
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(issued.key, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]
    (directory / "request.pem").write_bytes(pem)
    (directory / "plain.key").write_bytes(
        issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    words = ["-in", directory / "request.pem", "-signkey", directory / "plain.key"]
    openssl("x509", "-req", *words, "-out", files["ssl_certfile"])
    with pytest.raises(CertificateError, match="line 1: not a certificate for TLS"):
        context(**files)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ssl_keyfile": "k"}, "there is no ssl_certfile"),
        ({"ssl_ca_certs": "k"}, "there is no ssl_certfile"),
        ({"ssl_cert_reqs": 2}, "there is no ssl_certfile"),
        ({"ssl_certfile": ["a", "b"], "ssl_keyfile": "k"}, "2 ssl_certfile and 1 ssl_keyfile"),
        ({"ssl_certfile": "a", "ssl_cert_reqs": "required"}, "no authority is trusted"),
        ({"ssl_certfile": "a", "ssl_ca_certs": "c"}, "ssl_cert_reqs is none"),
        ({"ssl_certfile": "a", "ssl_crl": "c"}, "ssl_cert_reqs is none"),
        ({"ssl_certfile": "a", "ssl_ciphers": "HIGH"}, 'no cipher suite "HIGH"'),
        ({"ssl_certfile": "a", "ssl_ciphers": "ECDHE-RSA-AES256-GCM-SHA"}, "did you mean"),
        ({"ssl_certfile": "a", "ssl_version": "tls1.1"}, "all, tls1.2 or tls1.3"),
        (
            {
                "ssl_certfile": "a",
                "ssl_keyfile_password": "x",
                "ssl_keyfile_password_file": "y",
            },
            "both set",
        ),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        Config(**options)
    assert caught.value.exit_code == 2


def test_numbers_of_uvicorn() -> None:
    config = Config(
        ssl_certfile="a",
        ssl_ca_certs="c",
        ssl_version=ssl.PROTOCOL_TLS_SERVER,  # type: ignore[arg-type]
        ssl_cert_reqs=ssl.CERT_REQUIRED,  # type: ignore[arg-type]
    )
    assert (config.ssl_version, config.ssl_cert_reqs) == ("all", "required")


@pytest.mark.parametrize("workers", [1, 2])
def test_process_ends_before_the_application_is_imported(
    launch: Launch, authority: Authority, tmp_path: Path, workers: int
) -> None:
    options = authority.issue("localhost").write(tmp_path)
    Path(options["ssl_keyfile"]).write_bytes(key_pem(authority.issue("x").key))
    words = ["--ssl-certfile", options["ssl_certfile"], "--ssl-keyfile", options["ssl_keyfile"]]
    server = launch("supervised_apps:app", *words, "--workers", str(workers))
    assert server.wait() == 3
    assert "FG-START-005" in server.text
    assert server.text.count("does not belong to the certificate") == 1
    assert server.events("import") == []
