"""Settings of the service: what is read, and G13 of the acceptance list: what stops the start, in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcm.errors import ConfigError
from lcm.paths import home
from lcm.service.settings import Settings, settings_table, variable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def read(monkeypatch):
    """Read settings of an environment that has these LCM_ variables alone."""
    for name in [name for name in os.environ if name.startswith("LCM_")]:
        monkeypatch.delenv(name)

    def read(environment: dict[str, str]) -> Settings:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            return Settings.from_environment()

    return read


def test_defaults(read):
    settings = read({})
    assert (settings.host, settings.port, settings.token, settings.origins) == ("127.0.0.1", 8000, "", ())
    assert settings.max_image_mb * 4 / 3 * 78 / 76 < settings.max_body_mb, (
        "an image of full size fits in lines of base64"
    )
    assert settings.home == home()
    assert read({variable(name): "" for name in Settings.model_fields}) == settings
    assert read({"LCM_FLICKR8K": "/data", "LCM_DATASET_URL": "s3://bucket"}) == settings


def test_every_kind_of_value_is_read(read):
    assert read(
        {
            "LCM_HOST": " ::1 ",
            "LCM_PORT": "0",
            "LCM_TOKEN": "s3cr3t",
            "LCM_TOKEN_FOR_LEARNING": "Yes",
            "LCM_ALLOW_OPEN": "0",
            "LCM_ORIGINS": "https://a.example, http://localhost:3000/ ,https://[::1]:8443",
            "LCM_HOME": "/srv/lcm",
            "LCM_TIME_LIMIT_S": "2.5",
        }
    ) == Settings(
        host="::1",
        port=0,
        token="s3cr3t",
        token_for_learning=True,
        origins=("https://a.example", "http://localhost:3000", "https://[::1]:8443"),
        home=Path("/srv/lcm"),
        time_limit_s=2.5,
    )


OPEN = {"LCM_HOST": "0.0.0.0"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LCM_PROT": "1"}, "unknown setting 'LCM_PROT'; did you mean 'LCM_PORT'? choose from LCM_ALLOW_OPEN, "),
        ({"LCM_XYZZY_QUUX": "1"}, "unknown setting 'LCM_XYZZY_QUUX'; "),
        ({"LCM_PORT": "http"}, "LCM_PORT is 'http'; it must be a whole number from 0 to 65535"),
        ({"LCM_PORT": "80.5"}, "it must be a whole number from 0 to 65535"),
        ({"LCM_PORT": "65536"}, "LCM_PORT is '65536'; it must be a whole number from 0 to 65535"),
        ({"LCM_PORT": "-1"}, "it must be a whole number from 0 to 65535"),
        ({"LCM_PORT": "9" * 5000}, "it must be a whole number"),
        ({"LCM_TIME_LIMIT_S": "soon"}, "LCM_TIME_LIMIT_S is 'soon'; it must be a number from 0.01 to 3600"),
        ({"LCM_TIME_LIMIT_S": "nan"}, "it must be a number from 0.01 to 3600"),
        ({"LCM_TIME_LIMIT_S": "inf"}, "it must be a number from 0.01 to 3600"),
        ({"LCM_ALLOW_OPEN": "maybe"}, "LCM_ALLOW_OPEN is 'maybe'; it must be true or false"),
        ({"LCM_LANGUAGE": "french"}, "LCM_LANGUAGE cannot be used: received the language 'french'; send a code"),
        ({"LCM_TOKEN": "two words"}, "LCM_TOKEN may hold only visible ASCII"),
        ({"LCM_TOKEN": "schlüssel"}, "LCM_TOKEN may hold only visible ASCII"),
        ({"LCM_TOKEN_FOR_LEARNING": "true"}, "there is no token to ask for"),
        *(
            ({"LCM_ORIGINS": origin}, "LCM_ORIGINS holds")
            for origin in ("*", "example.com", "https://a.example/x", "HTTPS://A", "ftp://a", "https://a:x")
        ),
        (OPEN, "set LCM_TOKEN, or LCM_ALLOW_OPEN=true"),
        ({"LCM_HOST": "::"}, "there is no token"),
        ({"LCM_HOST": "photos.example"}, "there is no token"),
        ({"LCM_HOST": "localhost.example"}, "there is no token"),
    ],
)
def test_g13_bad_settings(read, environment, message):
    with pytest.raises(ConfigError) as caught:
        read(environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert environment.get("LCM_TOKEN", "none") not in str(caught.value)


def test_whom_the_service_is_open_to(read):
    for host in ("127.8.9.1", "::1", "localhost"):
        assert read({"LCM_HOST": host}).host == host
    assert read(OPEN | {"LCM_TOKEN": "t"}).host == "0.0.0.0"
    assert read(OPEN | {"LCM_ALLOW_OPEN": "true"}).host == "0.0.0.0"


def test_secrets_are_not_shown():
    shown = repr(Settings(token="s3cr3t", store_url="s3://key:s3cr3t@bucket"))
    assert "s3cr3t" not in shown


def test_the_table_names_every_setting():
    table = settings_table()
    assert [variable for variable, _, _ in table] == [*map(variable, Settings.model_fields)]
    assert all(len(meaning) > 10 and "|" not in meaning + default for _, default, meaning in table)


@pytest.mark.parametrize("environment", [{"LCM_PROT": "1"}, {"LCM_PORT": "x"}, OPEN], ids=["unknown", "bad", "open"])
def test_g13_the_start_ends_in_one_line(environment, tmp_path):
    everything = {name: value for name, value in os.environ.items() if not name.startswith("LCM_")}
    everything |= {"LCM_HOME": str(tmp_path)} | environment
    done = subprocess.run([sys.executable, "serve.py"], cwd=ROOT, env=everything, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("lcm: ")
