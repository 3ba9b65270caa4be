"""The duty desk and the crew's phone in a real browser: what they say, and that orders can be driven by clicking."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.page_street import Street
from tests.page_stub import Stream, served

CONSOLE = Path(__file__).parents[2] / "cloud" / "console"
LAUNCH = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
TRUCK = {
    "en": "tilt change 14.2° lasted 20 s, shorter than the 60 s on-delay",
    "zh-CN": "倾角变化 14.2°，仅持续 20 秒，短于 60 秒的延时",
}
FLOOD = {
    "en": "level 0.27 m above 0.25 m for 30 s; confirmed by rain-n1, camera-n1",
    "zh-CN": "水位 0.27 m，超过 0.25 m，持续 30 秒；经 rain-n1、camera-n1 印证",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is missing; install it with: apt-get install --yes chromium fonts-noto-cjk")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(LAUNCH))
        yield running
        running.close()


class Desk:
    """An open page with what it must not do: speak on the console, or reach out beyond the server."""

    def __init__(self, context: BrowserContext, address: str, street: Street, stream: Stream) -> None:
        self.page: Page = context.new_page()
        self.address, self.street, self.stream = address, street, stream
        self.complaints: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.address, "data:")):
            self.outside.append(url)


@contextmanager
def opened(
    browser: Browser,
    language: str = "en",
    path: str = "/",
    *,
    silent: bool = True,
    phone: bool = False,
    demo: bool = True,
    lan: bool = True,
) -> Iterator[Desk]:
    """Open a page over a fresh recording; ``silent`` says that it must not complain on the console."""
    street = Street()
    size = {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900}
    with served(street, demo=demo, lan=lan) as (address, stream):
        context = browser.new_context(viewport=size, locale=language)  # type: ignore[arg-type]
        context.set_default_timeout(10_000)
        desk = Desk(context, address, street, stream)
        desk.page.goto(address + path)
        try:
            yield desk
        finally:
            context.close()
    assert desk.outside == []
    if silent:
        assert desk.complaints == []


def entry(page: Page, column: str, key: str) -> Any:
    return page.locator(f'#{column} [data-id="{key}"]')


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_both_columns_tell_each_reason_with_its_numbers(browser: Browser, language: str) -> None:
    with opened(browser, language) as desk:
        expect(entry(desk.page, "dispatched", "order-1").locator(".why")).to_have_text(FLOOD[language])
        expect(entry(desk.page, "held", "truck").locator(".why")).to_have_text(TRUCK[language])
        expect(desk.page.locator("html")).to_have_attribute("lang", language)


def test_the_header_switches_the_language_and_it_stays(browser: Browser) -> None:
    with opened(browser, "en") as desk:
        expect(desk.page.locator("#held-title")).to_contain_text("Held back")
        desk.page.get_by_role("button", name="中文").click()
        expect(desk.page.locator("#held-title")).to_contain_text("未派遣")
        expect(desk.page.locator("html")).to_have_attribute("lang", "zh-CN")
        desk.page.reload()
        expect(entry(desk.page, "held", "truck").locator(".why")).to_have_text(TRUCK["zh-CN"])


def test_an_order_is_driven_to_its_close_by_clicking(browser: Browser) -> None:
    with opened(browser) as desk:
        page, head = desk.page, desk.page.locator("#order-head")
        page.get_by_role("button", name="Water in the underpass · close to traffic").first.click()
        expect(page.locator("#order-body")).to_contain_text("answers for drainage in the north")
        expect(page.locator("#order-body")).to_contain_text("chain verified")
        expect(page.locator("#order-body .chart .limit")).to_have_count(3)
        expect(page.locator("#order-body .chart .mark text")).to_contain_text(["onset", "decision", "dispatch"])
        expect(page.locator(".map .site.selected.flooded.closed")).to_have_count(1)

        head.get_by_role("button", name="Accept").click()
        head.get_by_role("button", name="Arrive").click()
        head.get_by_role("button", name="Handle").click()
        head.get_by_label("handled").check()
        head.get_by_label("Note (optional)").fill("pumped dry")
        head.get_by_role("button", name="Confirm: Handle").click()
        head.get_by_role("button", name="Verify").click()
        head.get_by_label("misfire", exact=True).check()
        head.get_by_label("Cause of the misfire").select_option("environment")
        head.get_by_role("button", name="Confirm: Verify").click()
        head.get_by_role("button", name="Close the order").click()

        expect(head.get_by_text("Finished; nothing left to do.")).to_be_visible()
        expect(entry(page, "dispatched", "order-1").locator(".tag").first).to_have_text("closed")
        expect(page.locator("#order-body .trail")).to_contain_text("pumped dry · handled")
        expect(page.locator("#order-body .trail")).to_contain_text("misfire · environment")
        assert desk.street.orders["order-1"]["state"] == "closed"


def test_a_cause_is_sent_with_a_misfire_only(browser: Browser) -> None:
    with opened(browser) as desk:
        desk.street.orders["order-1"]["state"] = "feedback"
        entry(desk.page, "dispatched", "order-1").get_by_role("button").click()
        head = desk.page.locator("#order-head")
        head.get_by_role("button", name="Verify").click()
        expect(head.get_by_label("Cause of the misfire")).to_be_hidden()
        expect(head.locator(":checked[type=radio]")).to_have_count(0)
        head.get_by_role("button", name="Confirm: Verify").click()
        expect(head.get_by_role("button", name="Confirm: Verify")).to_be_visible()  # nobody judged yet
        head.get_by_label("confirmed").check()
        head.get_by_role("button", name="Confirm: Verify").click()
        expect(head.get_by_role("button", name="Close the order")).to_be_visible()
        assert desk.street.orders["order-1"]["outcome"] == "confirmed"


def test_a_refused_action_says_why_and_shows_the_order_as_it_is(browser: Browser) -> None:
    with opened(browser, silent=False) as desk:  # a browser reports every 409 on its console
        entry(desk.page, "dispatched", "order-1").get_by_role("button").click()
        accept = desk.page.locator("#order-head").get_by_role("button", name="Accept")
        expect(desk.page.locator("#link")).to_have_text("Live")
        expect(desk.page.locator("#order-body .trail li")).not_to_have_count(0)  # all that was to be read is read
        desk.street.orders["order-1"]["version"] = 7
        accept.click()
        told = desk.page.locator("#order-head .told")
        expect(told).to_have_text("Not done: Not allowed: the order is at version 7, not 1")
        accept.click()
        expect(desk.page.locator("#order-head").get_by_role("button", name="Arrive")).to_be_visible()


def test_a_held_back_alert_is_dispatched_with_its_reason(browser: Browser) -> None:
    with opened(browser) as desk:
        page = desk.page
        entry(page, "held", "truck").get_by_role("button", name="Dispatch anyway").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Dispatch anyway").click()
        expect(dialog).to_be_visible()  # a reason is asked, and none was given
        dialog.get_by_label("Why dispatch it anyway?").fill("a caller saw it open")
        dialog.get_by_role("button", name="Dispatch anyway").click()
        expect(dialog).to_be_hidden()
        expect(entry(page, "dispatched", "order-6").locator(".why")).to_contain_text("dispatched by a person")
        expect(entry(page, "held", "truck")).to_have_count(0)
        expect(page.locator("#order-body .trail")).to_contain_text("a caller saw it open")


def test_information_is_not_dispatched_and_a_value_differs_from_its_limit(browser: Browser) -> None:
    with opened(browser) as desk:
        desk.street.alerts["rain"]["reason"]["numbers"] |= {"value": 20.3, "limit": 20}
        desk.page.reload()
        rain = entry(desk.page, "held", "rain")
        expect(rain.locator(".why")).to_contain_text("20.3 mm/h above 20 mm/h")
        expect(rain.get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["now: close to traffic", "now: slow down", "another alert joined at 03:20", "cleared at 03:58"]),
        ("zh-CN", ["现为：封交", "现为：慢行", "03:20 又有报警并入", "已于 03:58 恢复"]),
    ],
)
def test_an_order_says_what_is_true_now(browser: Browser, language: str, said: list[str]) -> None:
    with opened(browser, language) as desk:
        now = entry(desk.page, "dispatched", "order-1").locator(".now")
        expect(now).to_have_text(said[0])
        expect(desk.page.locator("#link")).to_have_class("link live")
        flood, order = desk.street.alerts["flood"], desk.street.orders["order-1"]
        slow = {"zh": "慢行", "en": "slow down"}
        flood |= {"phase": "updated", "level": "slow", "level_title": slow, "severity": "III"}
        joined = {"code": "joined_incident", "decided_at": "2026-06-18T19:20:00.000+00:00"}
        second = flood | {"id": "again", "severity": "IV", "decision": flood["decision"] | joined}
        desk.street.alerts["again"] = second
        order["alerts"] = ["flood", "again"]
        desk.stream.tell(("alert", "flood"), ("work_order", "order-1"))
        expect(now).to_contain_text(said[1])
        expect(now).to_contain_text(said[2])
        for alert, at in ((flood, "19:50"), (second, "19:58")):
            alert |= {"phase": "cleared", "cleared_at": f"2026-06-18T{at}:00.000+00:00"}
        desk.stream.tell(("alert", "flood"))
        expect(now).to_contain_text(said[3])


def test_what_stands_behind_a_silent_gateway_is_marked_as_the_last_known(browser: Browser) -> None:
    with opened(browser) as desk:
        expect(desk.page.locator("#link")).to_have_text("Live")
        desk.street.balance["gateways"][0]["state"] = "silent"
        desk.stream.tell(("balance", "gw-north"))
        expect(desk.page.locator(".site.flooded.stale .site-state")).to_have_text(
            "flooded 0.27 m · stale, as of 03:10 · to be closed"
        )
        expect(desk.page.locator('.map [data-device="level-n1"] .symbol.stale')).to_have_count(1)
        now = entry(desk.page, "dispatched", "order-1").locator(".now")
        expect(now).to_have_text("last known: close to traffic, no news since 03:10")


def test_the_balance_turns_amber_while_a_gateway_is_silent_and_green_again(browser: Browser) -> None:
    with opened(browser) as desk:
        line, balance = desk.page.locator(".balance"), desk.street.balance
        expect(line).to_have_attribute("data-colour", "green")
        expect(line).to_contain_text("Balanced · 0 lost")
        balance["closes"] = False
        balance["gateways"][1] |= {"state": "silent", "in_flight": 0}
        desk.stream.tell(("balance", "gw-south"))
        expect(line).to_have_attribute("data-colour", "amber")
        expect(line).to_contain_text("South cabinet silent since 03:10; what it holds is not known")
        expect(line).to_contain_text("in flight ?")
        expect(entry(desk.page, "devices", "cover-s2")).to_contain_text("no news since 03:10")
        expect(entry(desk.page, "devices", "level-n1")).not_to_contain_text("no news")
        balance["closes"] = True
        balance["gateways"][1] |= {"state": "online", "in_flight": 3}
        desk.stream.tell(("balance", "gw-south"))
        expect(line).to_have_attribute("data-colour", "green")
        expect(line).to_contain_text("Balanced · 0 lost")


def test_what_the_stream_tells_appears_without_a_reload_and_leaves_a_form_alone(browser: Browser) -> None:
    with opened(browser) as desk:
        page = desk.page
        desk.street.orders["order-1"]["state"] = "arrived"
        entry(page, "dispatched", "order-1").get_by_role("button").click()
        page.locator("#order-head").get_by_role("button", name="Handle").click()
        page.get_by_label("Note (optional)").fill("half a sentence")
        expect(page.locator("#link")).to_have_text("Live")
        page.evaluate("window.here = true")
        hit = dict(desk.street.alerts["truck"]) | {"id": "second", "device": "cover-s1"}
        desk.street.alerts["second"] = hit
        desk.street.orders["order-1"]["closure"]["lifted_at"] = "2026-06-18T19:40:00.000+00:00"
        desk.stream.tell(("alert", "second"), ("work_order", "order-1"))
        expect(entry(page, "held", "second")).to_contain_text("cover-s1")
        expect(page.locator("#order-body")).to_contain_text("no longer called for since 03:40")
        expect(page.get_by_label("Note (optional)")).to_have_value("half a sentence")
        assert page.evaluate("window.here") is True


def test_a_burst_of_events_is_answered_a_few_times_a_second(browser: Browser) -> None:
    with opened(browser) as desk:
        expect(desk.page.locator("#link")).to_have_text("Live")
        reads: list[str] = []
        desk.page.on("request", lambda request: reads.append(request.url) if "held-back" in request.url else None)
        desk.stream.tell(*[("alert", "truck")] * 200)
        desk.page.wait_for_timeout(1000)
        assert 1 <= len(reads) <= 5


def test_a_lost_connection_is_shown_and_taken_up_again(browser: Browser) -> None:
    with opened(browser, silent=False) as desk:  # a browser reports every lost connection on its console
        link = desk.page.locator("#link")
        expect(link).to_have_text("Live")
        desk.page.context.set_offline(True)
        desk.stream.break_off()
        expect(link).to_contain_text("Connection lost; the page stands at 03:")
        desk.street.alerts["late"] = dict(desk.street.alerts["truck"]) | {"id": "late"}
        desk.page.context.set_offline(False)
        expect(link).to_have_text("Live", timeout=15_000)
        expect(entry(desk.page, "held", "late")).to_be_visible()


def test_devices_show_a_rate_only_from_five_outcomes(browser: Browser) -> None:
    with opened(browser) as desk:
        expect(entry(desk.page, "devices", "camera-s1")).to_contain_text("misfires 30 % (10 %–58 %, n = 10)")
        expect(entry(desk.page, "devices", "cover-s2")).to_contain_text("outcomes: 3, misfires: 1; a rate from 5")


def test_a_device_on_the_map_selects_its_row_by_mouse_and_by_key(browser: Browser) -> None:
    with opened(browser) as desk:
        page = desk.page
        page.locator('.map [data-device="lamp-s1"]').click()
        expect(entry(page, "devices", "lamp-s1").locator("button")).to_have_attribute("aria-expanded", "true")
        page.locator('.map [data-device="cover-s1"]').focus()
        page.keyboard.press("Enter")
        expect(entry(page, "devices", "cover-s1").locator("button")).to_have_attribute("aria-expanded", "true")
        expect(page.locator('.map [data-device="cover-s1"]')).to_be_focused()


def test_the_demonstration_panel_acts_and_shows_the_crews_code(browser: Browser) -> None:
    with opened(browser) as desk:
        panel = desk.page.get_by_role("region", name="Come and fool it")
        desk.street.demo[0]["target"] = "cover-n2"
        cable = next(each for each in desk.street.demo if each["id"] == "cable")
        cable["target"] = "gw-north"
        panel.get_by_role("button", name="A truck over a cover").click()
        expect(panel.locator('[data-demo="truck"] .target')).to_have_text("cover-n2")
        expect(panel.locator('[data-demo="cable"] .target')).to_have_text("North cabinet")
        expect(panel.get_by_role("status")).to_contain_text("Started: A truck over a cover · truck lasts 20 s")
        assert desk.street.started == ["truck"]
        panel.get_by_role("button", name="Be the crew on your phone").click()
        code = desk.page.get_by_role("dialog").locator("img")
        expect(code).to_be_visible()
        assert code.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0


def test_without_a_crews_page_nobody_asks_for_its_code(browser: Browser) -> None:
    with opened(browser, lan=False) as desk:
        panel = desk.page.get_by_role("region", name="Come and fool it")
        expect(panel.get_by_role("button", name="A truck over a cover")).to_be_visible()
        expect(panel.get_by_role("button", name="Be the crew on your phone")).to_have_count(0)


def test_without_a_demonstration_there_is_no_panel(browser: Browser) -> None:
    with opened(browser, demo=False, silent=False) as desk:
        expect(entry(desk.page, "dispatched", "order-1")).to_be_visible()
        expect(desk.page.locator("#demo")).to_be_hidden()
    assert [each for each in desk.complaints if "404" not in each] == []  # the browser's own word on /demo/actions


def test_text_from_data_is_never_markup(browser: Browser) -> None:
    with opened(browser) as desk:
        desk.street.alerts["truck"]["title"] = {"zh": "", "en": "<img src=x onerror=alert(1)>"}
        desk.page.reload()
        expect(entry(desk.page, "held", "truck").locator("h3")).to_have_text("<img src=x onerror=alert(1)>")
        expect(desk.page.locator("img")).to_have_count(0)


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_nothing_sticks_out_at_the_side(browser: Browser, width: int) -> None:
    with opened(browser) as desk:
        desk.page.set_viewport_size({"width": width, "height": 900})
        entry(desk.page, "dispatched", "order-1").get_by_role("button").click()
        expect(desk.page.locator("#order-body .chart").first).to_be_visible()
        wide = desk.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width


def test_the_crew_drives_an_order_on_a_phone(browser: Browser) -> None:
    with opened(browser, "zh-CN", "/crew?token=once", phone=True) as desk:
        page, card = desk.page, desk.page.locator('[data-id="order-1"]')
        expect(card).to_contain_text("青石路下立交")
        assert "token" not in page.url
        card.get_by_role("button", name="接单").click()
        card.get_by_role("button", name="到场").click()
        card.get_by_label("情况说明").fill("水已排干")
        card.get_by_role("button", name="现场无异常").click()
        expect(card).to_contain_text("已上报")
        assert desk.street.orders["order-1"]["finding"] == "nothing_there"
        assert desk.street.trails["order-1"][-1]["why"] == "水已排干"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.reload()
        expect(card).to_be_visible()  # the cookie lets the phone in again


def test_a_used_code_is_turned_away(browser: Browser) -> None:
    with opened(browser, "en", "/crew?token=guessed", phone=True, silent=False) as desk:
        expect(desk.page.get_by_role("alert")).to_contain_text("This code no longer works")
        expect(desk.page.locator("#orders li")).to_have_count(0)


def test_every_word_is_there_in_both_languages_and_every_word_used_exists() -> None:
    words = json.loads((CONSOLE / "locale.json").read_text(encoding="utf-8"))
    assert [key for key, text in words.items() if not (text.get("zh") and text.get("en"))] == []
    sources = [path.read_text(encoding="utf-8") for path in CONSOLE.iterdir() if path.suffix in {".js", ".html"}]
    said = {key for source in sources for key in re.findall(r'(?:say\(|data-say=)"([\w.]+)"', source)}
    assert sorted(said - set(words)) == []
    assert len(said) > 40
