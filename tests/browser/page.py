#!/usr/bin/env python3
"""Drives the page of a running daemon in a real browser, as an operator would; ends with 0 if all of it is as it should.

Each step is a sentence. What it needs of the daemon it makes by itself: events over TCP, and trouble in its database.
"""

import argparse
import json
import pathlib
import re
import socket
import sqlite3
import sys
import time
from contextlib import contextmanager

from playwright.sync_api import expect, sync_playwright

DEADLINE_MS = 60_000
TENANTS = 10_000
# What the page may take of its main thread for one update, in ms of processor time, and until it is first painted, in ms.
UPDATE_MS = 100
PAINT_MS = 1_000
SIZES = {"1280": {"width": 1280, "height": 860}, "400": {"width": 400, "height": 860}}


class World:
    """The daemon, the browser, and what went wrong in it."""

    def __init__(self, args, browser):
        self.url, self.data, self.shots, self.browser = args.url, pathlib.Path(args.data), pathlib.Path(args.shots), browser
        self.config = pathlib.Path(args.config)
        host, port = args.events.rsplit(":", 1)
        self.events = (host, int(port))
        self.wrong = []
        self.page = self.open(SIZES["1280"])

    def open(self, size, scheme="light", quiet=False):
        context = self.browser.new_context(viewport=size, color_scheme=scheme, locale="en-GB")
        context.set_default_timeout(DEADLINE_MS)
        page = context.new_page()
        if not quiet:
            page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda why: self.wrong.append(f"{why}"))
            page.on("dialog", lambda dialog: (self.wrong.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        return page

    def go(self, where, page=None):
        page = page or self.page
        page.goto(f"{self.url}/#{where}")
        expect(page.locator("#link")).to_have_class("link good")
        return page

    def send(self, *lines):
        """Streams lines, and returns once all were taken in."""
        with socket.create_connection(self.events, timeout=DEADLINE_MS / 1000) as connection:
            connection.sendall(b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    def events_of(self, tenant, numbers, **more):
        self.send(*(json.dumps({"tenant": tenant, "n": n, **more}) for n in numbers))

    def database(self):
        database = sqlite3.connect(self.data / "headworks.db", timeout=DEADLINE_MS / 1000, isolation_level=None)
        return database

    def sql(self, text):
        database = self.database()
        try:
            return database.execute(text).fetchall()
        finally:
            database.close()

    @contextmanager
    def store_away(self):
        """Another process holds the database: the store is not there, until the end of this."""
        database = self.database()
        database.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            database.execute("ROLLBACK")
            database.close()

    def shoot(self, name, where, ready):
        """A view in light and dark, at both widths."""
        for scheme in ("light", "dark"):
            for width, size in SIZES.items():
                page = self.open(size, scheme)
                self.go(where, page)
                expect(page.locator(ready).first).to_be_visible()
                # A chart has a line from its second point on.
                if where == "/":
                    expect(page.locator(".chart .legend b").first).to_contain_text("/s")
                page.screenshot(path=self.shots / f"{name}-{scheme}-{width}.png")
                over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert over <= 0, f"{name} at {width}: {over} px wider than the window"
                page.context.close()

    def row(self, tenant):
        return self.page.locator(".rows .tr:visible", has=self.page.get_by_text(tenant, exact=True))


def it_loads_and_shows_every_tenant(world):
    for tenant in ("acme", "umbrella", "initech", "hooli"):
        world.events_of(tenant, range(40))
    page = world.go("/")
    expect(page.get_by_text("Every accepted event is accounted for.")).to_be_visible()
    expect(page.get_by_text("No tenant needs help.")).to_be_visible()
    # What came before the page was opened is not in its charts, and they say so.
    expect(page.locator(".chart .when").first).to_have_text(re.compile(r"^filling: .+ of 5 min$"))
    page.keyboard.press("2")
    for tenant in ("acme", "umbrella", "initech", "hooli"):
        expect(world.row(tenant)).to_be_visible()
    stored = world.row("acme").locator("[role=gridcell]").nth(6)
    expect(stored).to_have_text("40")


def a_tenant_fails_and_recovers_before_ones_eyes(world):
    page = world.go("/tenants")
    with world.store_away():
        world.events_of("acme", range(40, 60))
        expect(world.row("acme").locator(".pill.bad")).to_contain_text("parked")
        page.get_by_role("button", name="In trouble").click()
        expect(world.row("umbrella")).to_have_count(0)
        world.row("acme").locator("[role=gridcell]").nth(4).click()
        expect(page.get_by_role("heading", name="acme", exact=True)).to_be_visible()
        expect(page.locator(".title .pill.bad")).to_contain_text("parked")
        expect(page.get_by_text("waits for its store, which is not there")).to_be_visible()
        countdown = page.get_by_role("meter", name="Next attempt")
        expect(countdown).to_be_visible()
        expect(page.locator(".log .pill", has_text="parked").first).to_be_visible()
        # What it fails with has a name.
        expect(page.get_by_text("locked by another process").first).to_be_visible()
        world.shoot("1-tenant-fails", "/tenant/acme", "text=waits for its store")
        world.shoot("2-overview-fails", "/", "text=in flight, the oldest for")
    expect(page.locator(".title .pill").first).to_have_class("pill good")
    expect(page.locator(".log .pill", has_text="unparked").first).to_be_visible()
    expect(page.get_by_text("No batch is under way.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("No tenant is like that.")).to_be_visible()
    page.get_by_role("button", name="All").click()


def orders_are_given_and_mute_is_asked_about_first(world):
    page = world.go("/tenant/umbrella")
    page.get_by_role("button", name="Mute", exact=True).click()
    expect(page.get_by_role("heading", name="Mute umbrella?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#ask")).not_to_be_visible()
    expect(page.locator(".title .pill.off")).to_be_hidden()
    page.get_by_role("button", name="Mute", exact=True).click()
    world.shots_of_dialog = page.screenshot(path=world.shots / "3-mute-light-1280.png")
    page.locator("#ask-yes").click()
    expect(page.locator(".title .pill.off")).to_be_visible()
    world.events_of("umbrella", range(40, 43))
    expect(page.locator(".numbers div", has_text="muted").locator("dd")).to_have_text("3")
    page.get_by_role("button", name="Unmute").click()
    expect(page.locator(".title .pill.off")).to_be_hidden()
    page.get_by_role("button", name="Pause").click()
    page.locator("#ask-yes").click()
    expect(page.locator(".title .pill").first).to_contain_text("paused")
    world.events_of("umbrella", range(43, 50))
    expect(page.locator(".numbers div", has_text="in flight").locator("dd")).to_have_text("7")
    world.shoot("4-paused", "/tenant/umbrella", ".title .pill.warn")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".numbers div", has_text="in flight").locator("dd")).to_have_text("0")
    page.get_by_role("button", name="Flush").click()
    page.get_by_role("button", name="Restart").click()
    expect(page.locator("#said")).to_have_text("umbrella: restarted")


def a_dead_letter_is_replayed(world):
    world.sql("CREATE TRIGGER poison BEFORE INSERT ON events WHEN CAST(NEW.body AS TEXT) LIKE '%poison%' BEGIN SELECT RAISE(ABORT, 'poison'); END")
    world.send('{"tenant":"acme","n":60,"it":"is poison"}', '{"tenant":"acme","n":61}')
    page = world.go("/dead-letters")
    letter = page.locator(".letter", has_text="acme")
    expect(letter).to_contain_text("poison")
    letter.get_by_text("Content").click()
    expect(letter.locator("pre")).to_have_text('{"tenant":"acme","n":60,"it":"is poison"}')
    world.shoot("5-dead-letters", "/dead-letters", ".letter")
    world.sql("DROP TRIGGER poison")
    letter.get_by_role("button", name="Replay").click()
    page.locator("#ask-yes").click()
    expect(page.locator("#said")).to_have_text("1 of 1 came back.")
    expect(letter).to_have_count(0)
    page.get_by_label("not replayed only").uncheck()
    expect(letter.locator(".pill.good")).to_contain_text("replayed")
    page = world.go("/")
    page.get_by_role("button", name="Check against the stores").click()
    expect(page.get_by_text("Journal, stores and dead letters agree")).to_be_visible()
    # They agree while it is still on its way, too.
    world.go("/tenant/acme")
    expect(page.locator(".numbers div", has_text="in flight").locator("dd")).to_have_text("0")
    stored = world.sql("SELECT count(*) FROM events WHERE body LIKE '%poison%'")
    assert stored == [(1,)], f"the letter that came back is stored {stored} times"


def the_log_is_live_and_filtered(world):
    page = world.go("/log")
    expect(page.locator(".log li", has_text="acme").locator(".pill", has_text="parked").first).to_be_visible()
    page.get_by_role("button", name="Rollbacks").click()
    expect(page.locator(".log .pill", has_text="dead lettered").first).to_be_visible()
    expect(page.locator(".log .pill", has_text="parked")).to_have_count(0)
    page.get_by_role("button", name="Everything").click()
    page.get_by_role("searchbox").fill("umbrella")
    expect(page.locator(".log li", has_text="acme")).to_have_count(0)
    before = page.locator(".log li").count()
    page.evaluate("fetch('/v1/tenants/umbrella/restart', {method: 'POST'})")
    expect(page.locator(".log li")).not_to_have_count(before)
    page.get_by_role("searchbox").fill("")
    world.shoot("6-log", "/log", ".log li")


def it_is_used_by_keys_alone(world):
    page = world.go("/")
    page.keyboard.press("/")
    search = page.get_by_role("searchbox", name="Search tenants")
    expect(search).to_be_focused()
    page.keyboard.type("HOO")
    expect(page.locator(".rows .tr:visible")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(search).to_have_value("")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("grid")).to_be_focused()
    expect(page.locator(".tr.marked")).to_contain_text("acme")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".tr.marked")).to_contain_text("hooli")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", f"the focus is not to be seen: {outline}"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="hooli")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".tr.marked")).to_contain_text("hooli")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Rates")).to_be_visible()
    page.get_by_role("button", name="Colours: system").click()
    page.get_by_role("button", name="Colours: light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Colours: dark").click()


def nothing_from_data_is_html(world):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    world.send(json.dumps({"tenant": evil, "n": 1}), json.dumps({"tenant": "../../etc/passwd"}), json.dumps({"tenant": "'; DROP TABLE events; --"}))
    page = world.go("/dead-letters")
    letter = page.locator(".letter", has_text="onerror").first
    letter.get_by_text("Content").click()
    expect(letter.locator("pre")).to_contain_text("<script>alert(2)</script>")
    for where in ("/", "/tenants", "/log", f"/tenant/{evil}", f"/log/{evil}", "/tenant/..%2F..%2Fetc"):
        page = world.go(where)
        page.wait_for_timeout(0)
        assert page.locator("main script, main img").count() == 0, where
    expect(page.get_by_text("This is no tenant's id")).to_be_visible()
    policy = page.request.get(world.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy, policy


def where_a_token_is_needed_it_is_asked_for_once(world):
    page = world.open(SIZES["400"], quiet=True)

    def guard(route):
        if route.request.headers.get("authorization") == "Bearer open sesame":
            return route.continue_()
        problem = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "a token is needed"}
        return route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(problem))

    page.route("**/v1/**", guard)
    page.goto(f"{world.url}/#/tenants")
    token = page.locator("#ask-token")
    expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
    page.screenshot(path=world.shots / "7-token-light-400.png")
    token.fill("wrong")
    token.press("Enter")
    expect(page.get_by_role("heading", name="This token is not the right one")).to_be_visible()
    token.fill("open sesame")
    token.press("Enter")
    expect(page.locator("#link")).to_have_class("link good")
    page.reload()
    expect(page.locator("#link")).to_have_class("link good")
    expect(token).to_be_hidden()
    page.context.close()


def the_configuration_is_reloaded_and_a_bad_one_changes_nothing(world):
    page = world.go("/log")
    entries = page.locator(".log li")

    def told(what, words):
        return entries.filter(has=page.locator(".pill", has_text=what)).filter(has_text=words)

    # By a rename over it, as editors and deployment tools do.
    def configure(text):
        fresh = world.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(world.config)

    configure('[tenants]\nmute = ["initech"]\n[tenants.by_id.hooli]\nwindow.max_events = 7\n')
    reloaded = told("reloaded", "tenants.mute")
    expect(reloaded.first).to_be_visible()
    expect(reloaded.first).to_contain_text("initech")
    world.shoot("8-reloaded", "/log", ".log li")
    configure("[tenants]\nmute = 7\n")
    refused = told("reload refused", "tenants.mute")
    expect(refused.first).to_be_visible()
    page = world.go("/tenant/initech")
    expect(page.locator(".title .pill.off")).to_be_visible()
    world.events_of("initech", range(40, 45))
    expect(page.locator(".numbers div", has_text="muted").locator("dd")).to_have_text("5")
    page = world.go("/tenant/hooli")
    page.get_by_text("The rules it lives by").click()
    expect(page.locator(".rules div", has_text="window.max_events").locator("dd")).to_have_text("7")
    # An empty file is one that is being written: it is waited for.
    configure("# as it was\n")
    page = world.go("/tenant/initech")
    expect(page.locator(".title .pill.off")).to_be_hidden()


def ten_thousand_tenants_stay_responsive(world):
    for begin in range(0, TENANTS, 1000):
        world.send(*(json.dumps({"tenant": f"t{n:05}", "n": 0}) for n in range(begin, begin + 1000)))
    paints, shown = [], []
    for _ in range(3):
        page = world.go("/tenants", world.open(SIZES["1280"]))
        at = "name => performance.getEntriesByName(name)[0].startTime"
        paints.append(page.evaluate(at, "first-contentful-paint"))
        shown.append(page.evaluate(at, "shown"))
        page.context.close()
    # The best: other work on the machine is not the page's.
    paint = min(paints)
    page = world.open(SIZES["1280"])
    # In processor time, for the same reason.
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent():
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration") * 1000

    world.go("/tenants", page)
    expect(page.locator(".rows .tr:visible").nth(10)).to_be_visible()
    known = page.request.get(f"{world.url}/v1/overview?tenants=false").json()["totals"]["tenants"]
    assert known >= TENANTS, f"{known} tenants"
    expect(page.locator(".chip b").first).to_have_text(f"{known:,}")
    elements = page.evaluate("document.querySelectorAll('*').length")
    assert elements < 2_000, f"{elements} elements for {TENANTS} tenants"

    def next_update():
        expect(page.locator("#link")).not_to_have_text(page.locator("#link").text_content())

    next_update()
    costs = []
    for at in range(5):
        world.send(*(json.dumps({"tenant": f"t{n:05}", "n": at + 1}) for n in range(0, TENANTS, 3)))
        before = spent()
        next_update()
        costs.append(spent() - before)
    page.get_by_role("columnheader", name="Stored ever", exact=True).get_by_role("button").click()
    before = spent()
    page.get_by_role("grid").focus()
    page.keyboard.press("End")
    expect(page.locator(".tr.marked")).to_be_visible()
    page.keyboard.press("Home")
    scrolled = spent() - before
    before = spent()
    page.get_by_role("searchbox").fill("t0999")
    expect(page.locator(".rows .tr:visible")).to_have_count(10)
    searched = spent() - before
    cost = sorted(costs)[len(costs) // 2]
    print(f"{TENANTS} tenants: first paint after {paint:.0f} ms, all of them after {min(shown):.0f} ms; processor time of an update {cost:.0f} ms (all: "
          f"{', '.join(f'{cost:.0f}' for cost in costs)}), of a jump to the end and back {scrolled:.0f} ms, of a search {searched:.0f} ms; {elements} elements")
    page.get_by_role("searchbox").fill("")
    world.shoot("9-many-tenants", "/tenants", ".rows .tr")
    # The page that has been open for a while has lines to show.
    world.go("/", page)
    for at in range(8):
        world.send(*(json.dumps({"tenant": f"t{n:05}", "n": at}) for n in range(0, TENANTS, 2 + at % 3)), "no event")
        next_update()
    for scheme in ("light", "dark"):
        for width, size in SIZES.items():
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            page.screenshot(path=world.shots / f"10-overview-{scheme}-{width}.png")
    page.context.close()
    assert paint < PAINT_MS, f"first paint after {paint:.0f} ms"
    assert cost < UPDATE_MS, f"an update takes {cost:.0f} ms"


# In order: what a step leaves behind, the next one finds.
STEPS = [
    it_loads_and_shows_every_tenant,
    a_tenant_fails_and_recovers_before_ones_eyes,
    orders_are_given_and_mute_is_asked_about_first,
    a_dead_letter_is_replayed,
    the_log_is_live_and_filtered,
    it_is_used_by_keys_alone,
    nothing_from_data_is_html,
    where_a_token_is_needed_it_is_asked_for_once,
    the_configuration_is_reloaded_and_a_bad_one_changes_nothing,
    ten_thousand_tenants_stay_responsive,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the page is, without a slash at its end")
    parser.add_argument("--events", required=True, help="the address of the daemon's TCP source")
    parser.add_argument("--config", required=True, help="its configuration, which is changed")
    parser.add_argument("--data", required=True, help="its data directory")
    parser.add_argument("--shots", required=True, help="a directory for the screenshots")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--only", default="", help="only steps with this in their name")
    args = parser.parse_args()
    pathlib.Path(args.shots).mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        world = World(args, browser)
        for step in STEPS:
            if args.only not in step.__name__:
                continue
            began = time.monotonic()
            try:
                step(world)
                assert not world.wrong, f"the console says: {world.wrong}"
            except Exception:
                world.page.screenshot(path=world.shots / "failed.png")
                print(f"FAILED: {step.__name__}; see {world.shots}/failed.png; the console said {world.wrong}", file=sys.stderr)
                raise
            print(f"ok: {step.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)
        browser.close()


if __name__ == "__main__":
    main()
