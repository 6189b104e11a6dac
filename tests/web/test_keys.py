"""Keys: asked for, kept in their tab, sent with everything, forgotten. A module of its own: once there is a key, all need one."""

from typing import Any

from playwright.sync_api import Browser, expect

from tests.app.conftest import Service
from tests.service import wait_for
from tests.web.chromium import visiting


def test_a_key_is_asked_for_and_forgotten_with_the_tab(browser: Browser, prepared: Service) -> None:
    """Wrong, then right; kept in the session alone; downloads carry it; another tab asks again."""
    job_id = prepared.job(name="behind a key", steps=[{"method": "fold"}])
    prepared.worker.finish(job_id, b"the answer")
    key = prepared.key_of("default")
    # That none was needed is remembered for some seconds.
    wait_for(lambda: prepared.client.get("/v1/jobs").status_code == 401, 20)
    url = f"http://127.0.0.1:{prepared.port}"
    with visiting(browser, url) as somebody:
        page = somebody.page
        page.goto(f"{url}/#/jobs/{job_id}")
        dialog = page.get_by_role("dialog", name="This service needs a key")
        dialog.get_by_label("Key").fill("fb_" + "0" * 32)
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog).to_contain_text("wrong, revoked or expired")
        dialog.get_by_label("Key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("behind a key")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download the answer").click()
        assert download.value.path().read_bytes() == b"the answer"
        stored: dict[str, Any] = page.evaluate(
            "({local: {...localStorage}, cookies: document.cookie, session: {...sessionStorage}})"
        )
        assert stored["local"] == {}
        assert stored["cookies"] == ""
        assert key in stored["session"].values()
        assert key not in page.content()
        page.get_by_role("link", name="New job like this").click()
        expect(page.get_by_label("The same by curl")).to_contain_text("Bearer $FEWBYTES_KEY")
        other = page.context.new_page()
        other.goto(f"{url}/#/jobs")
        expect(other.get_by_role("dialog")).to_be_visible()
        page.get_by_role("button", name="forget it").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        somebody.check()
