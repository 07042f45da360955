"""Layers, origins, expansion, and every problem in one go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.config import LoadedConfig, load
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.origins import Layer
from realtime_communication.config.protection import Tls
from realtime_communication.config.reference import toml
from realtime_communication.errors import ConfigurationError, ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]
GUIDE = Path(__file__).parent / "guide"
SECRET = "0123456789abcdef0123456789abcdef"


def _one(problems: list[ConfigurationProblem]) -> ConfigurationProblem:
    (problem,) = problems
    return problem


class TestLayers:
    def test_each_layer_wins_over_the_one_below(self, load_config: Load) -> None:
        files = {"config.toml": "server.port = 2\n"}
        expected = [(8081, "default")]
        assert [
            (loaded.config.server.port, str(loaded.origins["server.port"])) for loaded in [load_config()]
        ] == expected
        assert load_config(files=files).config.server.port == 2
        files["config.prod.toml"] = "\nserver.port = 3\n"
        loaded = load_config(files=files)
        assert loaded.config.server.port == 3
        assert str(loaded.origins["server.port"]).endswith("config.prod.toml:2")
        loaded = load_config(files=files, environ={"PORT": "4"})
        assert (loaded.config.server.port, loaded.origins["server.port"].layer) == (4, Layer.ENVIRONMENT)
        loaded = load_config("--port=5", files=files, environ={"PORT": "4"})
        assert (loaded.config.server.port, str(loaded.origins["server.port"])) == (5, "command line --port")

    def test_file_wins_over_the_profile_default(self, load_config: Load) -> None:
        assert load_config("--profile=dev").config.server.host == "localhost"
        loaded = load_config("--profile=dev", files={"config.toml": 'server.host = "::1"'})
        assert loaded.config.server.host == "::1"

    def test_only_the_chosen_profile_file_is_read(self, load_config: Load) -> None:
        files = {"config.dev.toml": "server.port = 3", "config.prod.toml": "server.port = 4"}
        assert load_config("--profile=dev", files=files).config.server.port == 3
        assert [path.name for path in load_config(files=files).files] == ["config.prod.toml"]

    def test_profile_file_is_beside_the_named_file(self, load_config: Load, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        files = {
            "etc/rtc.toml": "server.port = 2\nserver.workers = 1",
            "etc/config.prod.toml": "server.port = 3",
            "config.prod.toml": "server.port = 4",
        }
        loaded = load_config(f"--config={tmp_path}/etc/rtc.toml", files=files)
        assert (loaded.config.server.port, loaded.config.server.workers) == (3, 1)
        assert [path.name for path in loaded.files] == ["rtc.toml", "config.prod.toml"]

    def test_lists_are_replaced_whole(self, load_config: Load) -> None:
        files = {
            "config.toml": 'security.cors.allowed_origins = ["https://a", "https://b"]',
            "config.prod.toml": 'security.cors.allowed_origins = ["https://c"]',
        }
        assert load_config(files=files).config.security.cors.allowed_origins == ("https://c",)

    def test_dotted_keys_headers_and_inline_tables_are_the_same(self, load_config: Load) -> None:
        for text in (
            "[websocket]\nmax_connections = 7",
            "websocket.max_connections = 7",
            "websocket = {max_connections = 7}",
        ):
            assert load_config(files={"config.toml": text}).config.websocket.max_connections == 7

    def test_a_new_profile_needs_its_file(self, load_config: Load, refused: Refuse) -> None:
        problem = _one(refused("--profile=staging"))
        assert (problem.key, problem.origin) == ("profile", "command line --profile")
        assert load_config("--profile=staging", files={"config.staging.toml": ""}).profile == "staging"

    @pytest.mark.parametrize("name", ["prdo", "../x", "", "a/b", "x" * 100])
    def test_names_that_are_no_profile(self, name: str, refused: Refuse) -> None:
        assert _one(refused(f"--profile={name}")).key == "profile"

    def test_empty_variable_counts_as_unset(self, load_config: Load) -> None:
        assert load_config(environ={"PORT": ""}).config.server.port == 8081

    def test_arguments_are_kept_for_loading_again(self, load_config: Load, tmp_path: Path) -> None:
        loaded = load_config("--port=5")
        assert (loaded.words, loaded.directory) == (("--port=5",), tmp_path)


class TestFiles:
    def test_a_named_file_must_exist(self, refused: Refuse, tmp_path: Path) -> None:
        problem = _one(refused(f"--config={tmp_path}/none.toml"))
        assert problem.origin == f"{tmp_path}/none.toml" and "No such file" in problem.message

    def test_a_directory_is_no_file(self, refused: Refuse, tmp_path: Path) -> None:
        assert "directory" in _one(refused(f"--config={tmp_path}")).message

    def test_a_dangling_link_is_told(self, refused: Refuse, tmp_path: Path) -> None:
        (tmp_path / "config.toml").symlink_to(tmp_path / "gone")
        assert "No such file" in _one(refused()).message

    def test_a_syntax_error_does_not_hide_other_problems(self, refused: Refuse) -> None:
        problems = refused("--port=none", files={"config.toml": "ok = 1\nserver.port =\n"})
        assert "line 2" in problems[0].message and problems[0].origin.endswith("config.toml")
        assert problems[1].key == "server.port"


class TestUnknown:
    @pytest.mark.parametrize(
        ("text", "key", "hint"),
        [
            ("[server]\nprot = 1", "server.prot", "did you mean server.port?"),
            ("[websocet]\nmax_connections = 1", "websocet", "unknown section; did you mean websocket?"),
            ("prot = 1", "prot", "unknown key"),
            ("[websocket]\nmax_conections = 1", "websocket.max_conections", "did you mean websocket.max_connections?"),
            (
                "[websocket]\nclient_timeout = 1",
                "websocket.client_timeout",
                "did you mean websocket.client_timeout_secs?",
            ),
            ("[performance.memroy]\nx = 1", "performance.memroy", "did you mean performance.memory?"),
            ('["server.port"]\nx = 1', "server.port", "unknown section"),
        ],
    )
    def test_in_a_file(self, text: str, key: str, hint: str, refused: Refuse) -> None:
        problem = _one(refused(files={"config.toml": text}))
        assert problem.key == key and hint in problem.message
        assert problem.origin.partition("config.toml:")[2].isdigit()

    def test_on_the_command_line(self, refused: Refuse) -> None:
        problem = _one(refused("--max-conections=1"))
        assert problem.key == "--max-conections" and "did you mean max-connections?" in problem.message

    def test_value_where_a_section_belongs(self, refused: Refuse) -> None:
        problem = _one(refused(files={"config.toml": "server = 1"}))
        assert problem.key == "server" and "section" in problem.message

    def test_section_where_a_value_belongs(self, refused: Refuse) -> None:
        problem = _one(refused(files={"config.toml": "[server.port]\nx = 1"}))
        assert problem.key == "server.port" and "must be an integer" in problem.message

    def test_control_characters_stay_out_of_the_report(self, refused: Refuse) -> None:
        problem = _one(refused(files={"config.toml": '"a\\u001b[31m\\n" = 1'}))
        assert str(problem).isprintable()


class TestSpellings:
    def test_aliases(self, load_config: Load) -> None:
        loaded = load_config(files={"config.toml": "[performance.actors]\ndefault_mailbox_size = 7"})
        assert loaded.config.actor_system.mailbox_capacity == 7
        loaded = load_config("--performance.actors.default_mailbox_size=8")
        assert loaded.config.actor_system.mailbox_capacity == 8

    def test_equal_spellings_agree(self, load_config: Load) -> None:
        text = "actor_system.mailbox_capacity = 7\nperformance.actors.default_mailbox_size = 7"
        assert load_config(files={"config.toml": text}).config.actor_system.mailbox_capacity == 7

    def test_spellings_that_disagree_in_a_layer(self, refused: Refuse) -> None:
        text = "actor_system.mailbox_capacity = 7\nperformance.actors.default_mailbox_size = 8"
        problem = _one(refused(files={"config.toml": text}))
        assert problem.key == "performance.actors.default_mailbox_size" and problem.origin.endswith(":2")
        assert "actor_system.mailbox_capacity" in problem.message and "config.toml:1" in problem.message

    def test_spellings_in_different_layers_do_not_disagree(self, load_config: Load) -> None:
        loaded = load_config(
            "--performance.actors.default_mailbox_size=8", files={"config.toml": "actor_system.mailbox_capacity = 7"}
        )
        assert loaded.config.actor_system.mailbox_capacity == 8

    def test_both_variables_of_the_log_level(self, load_config: Load, refused: Refuse) -> None:
        assert load_config(environ={"RUST_LOG": "debug", "LOG_LEVEL": "debug"}).config.logging.level == "debug"
        problem = _one(refused(environ={"RUST_LOG": "debug", "LOG_LEVEL": "warn"}))
        assert "RUST_LOG" in problem.message and "LOG_LEVEL" in problem.origin

    def test_two_options_that_disagree(self, refused: Refuse) -> None:
        assert "disagree" in _one(refused("--port=1", "--server.port=2")).message

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("tls.enabled = false", "security.tls.enabled = true"),
            ("metrics.port = 1", "monitoring.prometheus.port = 2"),
            ("redis.timeout_secs = 5", "redis.connection_timeout_ms = 4000"),
            ("circuit_breaker.half_open_max_requests = 3", "circuit_breaker.half_open_requests = 4"),
            ("redis.enable_cluster = false", "redis.cluster.enabled = true"),
        ],
    )
    def test_the_guides_pairs_disagree(self, one: str, other: str, refused: Refuse) -> None:
        problems = refused("--profile=test", files={"config.toml": one + "\n" + other})
        assert any("disagree" in problem.message for problem in problems)

    def test_units_of_a_pair(self, load_config: Load) -> None:
        text = "redis.timeout_secs = 5\nredis.connection_timeout_ms = 5000\nredis.pool.connection_timeout_ms = 5000"
        assert load_config(files={"config.toml": text}).profile == "prod"


class TestExpansion:
    def test_a_string(self, load_config: Load) -> None:
        loaded = load_config(files={"config.toml": 'auth.jwt_issuer = "${WHO}-${X:-y}"'}, environ={"WHO": "me"})
        assert loaded.config.auth.jwt_issuer == "me-y"

    def test_a_number(self, load_config: Load) -> None:
        text = 'server.port = "${RTC_PORT:-9001}"\nserver.workers = "${N}"'
        loaded = load_config(files={"config.toml": text}, environ={"N": "2"})
        assert (loaded.config.server.port, loaded.config.server.workers) == (9001, 2)

    def test_a_number_in_a_plain_string_is_a_wrong_type(self, refused: Refuse) -> None:
        assert _one(refused(files={"config.toml": 'server.port = "9001"'})).key == "server.port"

    def test_inside_lists_and_tables(self, load_config: Load) -> None:
        text = 'security.cors.allowed_origins = ["https://${H}"]\nauth.providers = [{type = "${T}"}]'
        config = load_config(files={"config.toml": text}, environ={"H": "a", "T": "jwt"}).config
        assert config.security.cors.allowed_origins == ("https://a",)
        assert config.auth.providers[0].type == "jwt"

    def test_unset(self, refused: Refuse) -> None:
        problem = _one(refused(files={"config.toml": 'auth.jwt_issuer = "${NOT_THERE}"'}))
        assert problem.origin.endswith(":1") and "NOT_THERE" in problem.message

    def test_unset_though_a_higher_layer_hides_it(self, refused: Refuse) -> None:
        files = {"config.toml": 'auth.jwt_issuer = "${NOT_THERE}"'}
        assert _one(refused("--auth.jwt_issuer=x", files=files)).key == "auth.jwt_issuer"

    def test_the_secret_of_the_dev_profile_may_be_unset(self, load_config: Load, refused: Refuse) -> None:
        files = {"config.toml": 'auth.jwt_secret = "${JWT_SECRET}"'}
        assert load_config("--profile=dev", files=files, secret=False).secret_made
        assert refused(files=files, secret=False)[0].key == "auth.jwt_secret"

    def test_what_a_variable_holds_is_not_expanded_again(self, load_config: Load) -> None:
        loaded = load_config(files={"config.toml": 'auth.jwt_issuer = "${A}"'}, environ={"A": "${B}"})
        assert loaded.config.auth.jwt_issuer == "${B}"


class TestBendingDefaults:
    def test_frame_size_follows_a_small_message_size(self, load_config: Load) -> None:
        loaded = load_config("--max-message-size=1000")
        assert loaded.config.websocket.max_frame_size == 1000
        assert "websocket.max_message_size" in str(loaded.origins["websocket.max_frame_size"])

    def test_heartbeat_follows_a_small_timeout(self, load_config: Load) -> None:
        assert load_config("--client-timeout-secs=2").config.websocket.heartbeat_interval_secs == 1

    def test_both_sizes_of_the_pool_follow_the_one_that_is_set(self, load_config: Load) -> None:
        for word, sizes in (("--redis.pool.max_size=3", (3, 3, 3)), ("--redis.pool_size=30", (5, 30, 30))):
            redis = load_config(word).config.redis
            assert (redis.pool.min_idle, redis.pool_size, redis.pool.max_size) == sizes

    def test_sizes_of_the_pool_that_were_set_do_not_bend(self, refused: Refuse) -> None:
        assert _one(refused("--redis.pool.max_size=3", "--redis.pool_size=4")).key == "redis.pool.max_size"

    def test_large_values_bend_nothing(self, load_config: Load) -> None:
        websocket = load_config("--max-message-size=5000000", "--client-timeout-secs=600").config.websocket
        assert (websocket.max_frame_size, websocket.heartbeat_interval_secs) == (65536, 30)


class TestReports:
    def test_everything_in_one_go(self, refused: Refuse) -> None:
        problems = refused(
            "--profile=prod",
            "--max-connections=many",
            "stray",
            files={
                "config.toml": "[server]\nport = 99999\nwrong = 1\n[nowhere]\n",
                "config.prod.toml": "[websocket]\nclient_timeout_secs = 'x'\n",
            },
            environ={"WORKERS": "-1", "JWT_SECRET": "short"},
        )
        assert {problem.key for problem in problems} == {
            "server.port",
            "server.wrong",
            "nowhere",
            "websocket.client_timeout_secs",
            "server.workers",
            "stray",
            "websocket.max_connections",
            "auth.jwt_secret",
        }

    def test_a_value_is_shown_with_origin_and_what_is_allowed(self, refused: Refuse, tmp_path: Path) -> None:
        problem = _one(refused(files={"config.toml": "[server]\n\nport = 99999\n"}))
        assert str(problem) == f"{tmp_path}/config.toml:3: server.port = 99999: must be an integer from 0 to 65535"

    def test_a_secret_that_is_missing_has_no_value_to_hide(self, refused: Refuse) -> None:
        problem = _one(refused("--redis.cluster.enabled=true"))
        assert str(problem) == "redis.cluster.nodes: is missing: a cluster needs the URL of a node at least"

    def test_a_place_in_a_list_has_its_line(self, refused: Refuse) -> None:
        text = '[[auth.providers]]\ntype = "jwt"\n\n[[auth.providers]]\ntype = "jwtt"\n'
        problem = _one(refused(files={"config.toml": text}))
        assert problem.key == "auth.providers[1].type" and problem.origin.endswith("config.toml:5")

    def test_a_faulty_lower_layer_is_told_though_a_higher_one_hides_it(self, refused: Refuse) -> None:
        assert _one(refused("--port=1", files={"config.toml": "server.port = 0.5"})).origin.endswith("config.toml:1")

    def test_secrets_are_redacted(self, refused: Refuse) -> None:
        hidden = "hush-hush"
        problems = refused(
            f"--auth.jwt_secret={hidden}",
            f"--redis.url=redis://:{hidden}@host",
            files={
                "config.toml": f'auth.jwt_secret = ["{hidden}"]\n'
                f'redis.sentinel = {{ enabled = 1, password = ["{hidden}"] }}\n'
                f'circuit_breaker.events = {{ webhook_url = "ftp://:{hidden}@x" }}\n'
            },
        )
        assert len(problems) >= 4 and hidden not in "\n".join(map(str, problems))

    def test_config_does_not_show_the_secret(self, load_config: Load) -> None:
        assert SECRET not in repr(load_config()) and SECRET in repr(load_config().config.auth.jwt_secret)


class TestGuide:
    """The configuration files of the guide, as an operator would bring them along."""

    files = {path.name: path.read_text() for path in GUIDE.iterdir()}  # noqa: RUF012 - read once, never changed

    def _load(self, load_config: Load, profile: str) -> LoadedConfig:
        return load_config(f"--profile={profile}", files=self.files)

    @pytest.mark.parametrize("profile", ["dev", "test", "prod"])
    def test_is_accepted(self, profile: str, load_config: Load) -> None:
        assert self._load(load_config, profile).profile == profile

    def test_says_what_the_guide_says(self, load_config: Load) -> None:
        dev, test = (self._load(load_config, profile).config for profile in ("dev", "test"))
        assert (dev.websocket.max_connections, dev.websocket.client_timeout_secs) == (100, 300)
        assert (test.server.port, test.testing.bypass_auth, test.testing.deterministic_ids) == (0, True, True)

    def test_the_main_file_only_repeats_defaults(self, load_config: Load) -> None:
        loaded = load_config(files={"config.toml": self.files["config.toml"]})
        security = msgspec.structs.replace(loaded.config.security, tls=Tls())  # names files that a default cannot
        assert msgspec.structs.replace(loaded.config, security=security) == load_config("--config=/dev/null").config

    def test_prod_says_what_it_lacks(self, load_config: Load) -> None:
        warnings = self._load(load_config, "prod").warnings
        assert [warning.partition(" ")[0] for warning in warnings] == [
            "security.enforce_tls",
            "security.strict_transport_security",
        ]


class TestSecretsOnTheCommandLine:
    @pytest.mark.parametrize(
        ("word", "key"),
        [
            ("--auth.jwt_secret=" + "hush" * 10, "auth.jwt_secret"),
            ("--redis.url=redis://:hush@localhost", "redis.url"),
            ("--circuit_breaker.events.webhook_secret=" + "hush" * 10, "circuit_breaker.events.webhook_secret"),
        ],
    )
    def test_there_is_a_warning_that_names_the_option_only(self, load_config: Load, word: str, key: str) -> None:
        (warning,) = load_config(word).warnings
        assert warning.startswith(word.partition("=")[0])
        assert warning.endswith(f"for {key}")
        assert "hush" not in warning

    @pytest.mark.parametrize("word", ["--redis.url=redis://localhost:6380/1", "--server.port=8082"])
    def test_there_is_none_without(self, load_config: Load, word: str) -> None:
        assert load_config(word).warnings == ()

    def test_there_is_none_for_other_sources(self, load_config: Load) -> None:
        assert load_config(environ={"REDIS_URL": "redis://:hush@localhost"}).warnings == ()


_paths = [
    "server.port",
    "server.workers",
    "websocket.max_connections",
    "message_routing.max_cache_entries",
    "actor_system.max_restarts",
]
_layer = st.dictionaries(st.sampled_from(_paths), st.integers(1, 64))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_layer, _layer, _layer, _layer)
def test_layers_against_a_plain_dictionary(
    main: dict[str, int], profile: dict[str, int], environ: dict[str, int], options: dict[str, int]
) -> None:
    named = {path: variable for path in _paths for variable in KEYS[path].variables}
    variables = {named[path]: str(value) for path, value in environ.items() if path in named}
    with tempfile.TemporaryDirectory() as folder:
        for name, layer in (("config.toml", main), ("config.prod.toml", profile)):
            Path(folder, name).write_text("".join(f"{path} = {toml(value)}\n" for path, value in layer.items()))
        words = [f"--{path}={value}" for path, value in options.items()]
        loaded = load(words, {**variables, "JWT_SECRET": SECRET}, Path(folder))
    expected = {path: KEYS[path].default for path in _paths} | main | profile
    expected |= {path: environ[path] for path in environ if path in named}
    expected |= options
    for path, value in expected.items():
        section, _, name = path.partition(".")
        assert getattr(getattr(loaded.config, section), name) == value
        layers = [options, {path: 0 for path in environ if path in named}, profile, main]
        ranks = [Layer.COMMAND_LINE, Layer.ENVIRONMENT, Layer.PROFILE_FILE, Layer.FILE]
        winner = next((rank for rank, layer in zip(ranks, layers, strict=True) if path in layer), Layer.DEFAULT)
        assert loaded.origins[path].layer is winner


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=20), max_size=5), st.text(max_size=200))
def test_whatever_comes_only_problems_come_out(words: list[str], text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.toml").write_bytes(text.encode(errors="surrogatepass"))
        try:
            load([*words, *("--" + word for word in words)], {"JWT_SECRET": SECRET}, Path(folder))
        except ConfigurationError as error:
            assert error.problems
            assert all(str(problem).isprintable() for problem in error.problems)


def test_a_file_that_cannot_be_read_is_the_one_problem(load_config: Load) -> None:
    """What is missing without it may stand in it; what other layers say is looked at all the same."""
    with pytest.raises(ConfigurationError) as caught:
        load_config("--redis.pool.min_idle=11", files={"config.toml": "[broken\n"}, secret=False)
    first, second = caught.value.problems
    assert "is not valid TOML" in first.message
    assert (second.key, second.origin) == ("redis.pool.min_idle", "command line --redis.pool.min_idle")
