"""The page of ``explain`` in a real browser: its numbers are Python's, also after changes, and keys alone drive it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import COSTS, HIDDEN, targets

from gpubp import Activation, Explanation, Network, explain
from gpubp._explain.page import key_of

pytest.importorskip("selenium", reason="selenium is not installed: ci/test adds it")

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.keys import Keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="no Chromium with chromedriver on this machine"
    ),
    pytest.mark.slow,
]
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync"""

READ = """
const found = {};
for (const cell of document.querySelectorAll(arguments[0] + " [data-key]")) {
  const { key, r, c, value } = cell.dataset;
  ((found[key] ??= [])[r] ??= [])[c] = Number(value);
}
return found;"""

# every matrix of a step stands under the name that it has among all matrices, transposed or not
NAMED = """return [...document.querySelectorAll("#step figure")].filter((figure) => {
  const caption = figure.querySelector("figcaption").innerText.replace(/T$/, "");
  const same = document.querySelector(`#all [data-figure="${figure.dataset.figure}"] figcaption`);
  return same && same.innerText !== caption;
}).map((figure) => figure.innerText);"""

NETS = [
    *(Network((2, 3, 2), hidden=sigma) for sigma in HIDDEN),
    *(Network((2, 3, 2), hidden="tanh", cost=cost) for cost in COSTS),
    Network((2, 3, 3), hidden="tanh", output="sigmoid", cost="cross_entropy"),
    Network((2, 2, 2), output="softmax", cost="binary_cross_entropy", bias=False),
    Network((2, 3, 2), output="softplus", cost="poisson", input="tanh", bias=False),
    Network((1, 1, 1, 1), hidden="sigmoid", bias=False),
    Network((2, 2, 2), hidden="identity", cost="absolute_error"),
    Network((2, 1), cost="poisson", input="gelu"),
]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """An explanation, opened."""

    def __init__(self, chrome: Chrome, folder: Path, explanation: Explanation, width: int = 1280) -> None:
        file = folder / "page.html"
        file.write_text(explanation.html(), encoding="utf-8")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(file.as_uri())
        self.chrome = chrome

    def press(self, *keys: str) -> None:
        for key in keys:
            self.chrome.switch_to.active_element.send_keys(key)

    def read(self, part: str = "#all") -> dict[str, Any]:
        """The matrices in that part of the page, in full digits."""
        found: dict[str, Any] = self.chrome.execute_script(READ, part)
        return found

    def change(self, key: str, r: int, c: int, text: str) -> None:
        """Type into a cell of the list of all matrices."""
        cell = f'#all input[data-key="{key}"][data-r="{r}"][data-c="{c}"]'
        self.chrome.execute_script("document.querySelector(arguments[0]).focus()", cell)
        self.press(text)

    def text(self, selector: str) -> str:
        return str(
            self.chrome.execute_script("return document.querySelector(arguments[0]).innerText", selector)
        )

    def count(self, selector: str) -> int:
        return int(
            self.chrome.execute_script("return document.querySelectorAll(arguments[0]).length", selector)
        )

    def complaints(self) -> list[Any]:
        return list(self.chrome.get_log("browser"))  # type: ignore[no-untyped-call]


def drawn(net: Network, B: int = 1, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    w = net.init(seed, dtype="float64") + 0.2 * rng.standard_normal(net.n_weights)
    x = rng.standard_normal((B, net.sizes[0]))
    return w, x, targets(net.cost_function.name, rng, B, net.sizes[-1])


def agree(page: dict[str, Any], explanation: Explanation) -> None:
    """Every matrix of the page is Python's; differences to what rounding leaves of them."""
    terms = [term for part in explanation.parts.values() for term in part]
    ours = {key_of(term.name): term.value for term in terms}
    ours |= {f"e{key_of(term.name)}": term.difference for term in terms if term.difference is not None}
    assert set(page) <= set(ours)
    for key, value in page.items():
        size = max(1.0, float(np.max(np.abs(ours[key]))))
        off = 1e-8 if key.startswith("e") else 1e-12
        np.testing.assert_allclose(np.ravel(value), np.ravel(ours[key]), rtol=0, atol=off * size, err_msg=key)


def test_stepping_shows_every_number_of_the_explanation(chrome: Chrome, tmp_path: Path) -> None:
    net = Network((3, 4, 2), hidden="tanh", cost="cross_entropy")
    ours = explain(net, *drawn(net))
    page = Page(chrome, tmp_path, ours)
    steps = [term for part in ours.parts.values() for term in part if term.name[0] not in "Wby"]
    assert len(steps) == 17
    for k, term in enumerate(steps):
        shown = page.read("#step")
        assert key_of(term.name) in shown
        agree({key: value for key, value in shown.items() if key[0] != "S"}, ours)
        assert f"step {k + 1} of 17" in page.text("#where")
        assert str(term.shape) in page.text("#step") or term.shape == ()
        assert page.count("#step .result td") == term.value.size
        assert page.chrome.execute_script(NAMED) == []
        assert page.count("#all .now") == (0 if term.name.startswith("dC/dq") else 1)
        page.press(Keys.ARROW_RIGHT)
    agree(page.read(), ours)
    assert page.count("#all .later") == 0
    assert page.complaints() == []


def test_keys_alone_step_and_change(chrome: Chrome, tmp_path: Path) -> None:
    net = Network((2, 3, 1), hidden="tanh")
    w, x, y = drawn(net)
    page = Page(chrome, tmp_path, explain(net, w, x, y))
    focused = "return document.activeElement.id || document.activeElement.dataset.key"
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert "step 2 of" in page.text("#where")
    page.press(Keys.END)
    assert page.chrome.execute_script("return document.querySelector('#next').disabled")
    assert page.text("#where").startswith("Gradient")
    page.press(Keys.HOME, Keys.ARROW_LEFT)
    assert "step 1 of" in page.text("#where")

    # Tab comes to the buttons, then to the first number; what has the focus is outlined
    page.chrome.execute_script("document.querySelector('#last').focus()")
    page.press(Keys.ENTER)
    assert page.text("#where").startswith("Gradient")
    page.chrome.execute_script("document.querySelector('#track button').focus()")
    page.press(Keys.ENTER)
    for _ in range(40):
        page.press(Keys.TAB)
        if page.chrome.execute_script(focused) == "p0":
            break
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.chrome.execute_script(outline) == "solid"
    page.press(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_DOWN)
    x[0, 0] += 0.1
    agree(page.read(), explain(net, w, x, y))
    page.press(Keys.ESCAPE)
    x[0, 0] -= 0.1
    agree(page.read(), explain(net, w, x, y))

    # the slider moves the number that was chosen last
    page.chrome.execute_script("document.querySelector('#range').focus()")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    x[0, 0] = page.chrome.execute_script("return Number(document.querySelector('#range').value)")
    assert 0.01 < x[0, 0] - drawn(net)[1][0, 0] < 0.05
    agree(page.read(), explain(net, w, x, y))
    assert page.complaints() == []


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize(
    "net", [NETS[0], Network((2, 2, 3), cost="cross_entropy"), Network((2, 2, 1), "identity")]
)
def test_a_chosen_element_is_the_sum_that_is_spelled(
    chrome: Chrome, tmp_path: Path, net: Network, B: int
) -> None:
    page = Page(chrome, tmp_path, explain(net, *drawn(net, B)))
    spelled = 0
    for k in range(page.count("#track button")):
        page.chrome.execute_script("document.querySelectorAll('#track button')[arguments[0]].click()", k)
        page.chrome.execute_script("[...document.querySelectorAll('#step .result button')].at(-1)?.focus()")
        shown = page.text("#spell").partition(";")[0].replace("\u2212", "-").replace("\u00b7", "*")
        made, equals, value = shown.rpartition(" = ")
        (found,) = [v for key, v in page.read("#step .result").items() if not key.startswith("e")]
        if page.count("#step .result button"):
            assert float(value) == np.ravel(found)[-1]
        if equals and re.fullmatch(r"[-+*/()e. \d]+", made):
            assert eval(made) == pytest.approx(float(value), rel=1e-2, abs=1e-2)
            spelled += 1
    assert spelled >= 3 * len(net.sizes) - 3


def test_arrows_move_the_caret_of_a_number_and_no_step(chrome: Chrome, tmp_path: Path) -> None:
    net = Network((2, 1))
    w, x, y = drawn(net)
    page = Page(chrome, tmp_path, explain(net, w, x, y))
    page.change("W0", 0, 1, "0.25")
    page.press(Keys.ARROW_LEFT, "3")
    assert "step 1 of" in page.text("#where")
    w[1] = 0.235
    agree(page.read(), explain(net, w, x, y))
    for wrong in ("x", "", "1e", "0x10"):
        page.change("W0", 0, 1, Keys.CONTROL + "a" + Keys.NULL + Keys.BACKSPACE + wrong)
        assert page.count("[aria-invalid]") == 1
    page.chrome.execute_script("document.querySelector('#reset').focus()")
    page.press(Keys.ENTER)
    agree(page.read(), explain(net, *drawn(net)))
    assert page.complaints() == []


@pytest.mark.parametrize(("seed", "net"), list(enumerate(NETS)), ids=str)
def test_the_chains_follow_an_input_and_a_weight(
    chrome: Chrome, tmp_path: Path, net: Network, seed: int
) -> None:
    B = 1 + seed % 3
    w, x, y = drawn(net, B, seed)
    page = Page(chrome, tmp_path, explain(net, w, x, y))
    last = len(net.sizes) - 2
    page.change("p0", B - 1, 0, "-0.625")
    page.change(f"W{last}", 0, net.sizes[last] - 1, "1.75")
    x[B - 1, 0] = -0.625
    layers = [(W.copy(), b) for W, b in net.layers(w)]
    layers[last][0][0, -1] = 1.75
    w = net.flatten(layers)
    if net.bias:
        page.change("b0", 0, 0, "0.5")
        w[net.layout.n_matrix_weights] = 0.5
    ours = explain(net, w, x, y)
    agree(page.read(), ours)
    page.chrome.execute_script("document.querySelector('#last').click()")
    agree(page.read("#step"), ours)
    assert page.complaints() == []


def test_what_the_page_can_not_compute_it_only_shows(chrome: Chrome, tmp_path: Path) -> None:
    sine = Activation(lambda xp, p: xp.sin(p), lambda xp, p, q: xp.cos(p), name="relu")  # in name only
    net = Network((2, 3, 1), hidden=sine)
    ours = explain(net, *drawn(net))
    page = Page(chrome, tmp_path, ours)
    agree(page.read(), ours)
    assert page.count("input") == 0
    assert "nothing can be changed here" in page.text("#fixed")
    page.press(Keys.END)
    assert page.text("#where").startswith("Gradient")
    assert page.complaints() == []


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("sizes", [(3, 4, 2), (8,) * 6, (1,) * 9])
def test_no_step_is_wider_than_the_window(
    chrome: Chrome, tmp_path: Path, sizes: tuple[int, ...], width: int
) -> None:
    net = Network(sizes, hidden="tanh", bias=sizes[0] > 1)
    page = Page(chrome, tmp_path, explain(net, *drawn(net, 1 if sizes[0] == 1 else 8)), width)
    page.chrome.execute_script("document.querySelector('details').open = true")
    widths = page.chrome.execute_script(
        """const root = document.documentElement, found = [];
        for (const chip of document.querySelectorAll("#track button")) {
          chip.click();
          found.push(root.scrollWidth);
        }
        return found;"""
    )
    assert len(widths) > 10
    assert max(widths) <= width
    page.chrome.execute_script("document.querySelector('#all input').focus()")
    assert page.count("#range") == 1
    assert page.chrome.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.complaints() == []


def test_nothing_moves_where_motion_is_not_wanted(chrome: Chrome, tmp_path: Path) -> None:
    net = Network((2, 1))
    page = Page(chrome, tmp_path, explain(net, *drawn(net)))
    took = []
    for wish in ("no-preference", "reduce"):
        feature = {"name": "prefers-reduced-motion", "value": wish}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        style = "return getComputedStyle(document.querySelector('td')).transitionDuration"
        took.append(page.chrome.execute_script(style))
    assert set(took[0].split(", ")) == {"0.2s"}
    assert took[1] == "0s"
