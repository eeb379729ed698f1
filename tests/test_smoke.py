from tests.conftest import PASSWORD, Running, serving


async def test_a_login_opens_the_protected_route(service: Running):
    await service.sign_up()
    tokens = await service.log_in()
    answer = await service.get("/protected", tokens)
    assert answer.json()["session_id"] == tokens["session_id"]


def test_a_server_process_serves(tmp_path):
    import httpx

    with serving(tmp_path / "var") as server:
        body = {"username": "ada", "password": PASSWORD}
        assert httpx.post(f"{server.url}/signup", json=body).status_code == 201
