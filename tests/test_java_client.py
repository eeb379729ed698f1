"""A Java program with java.net.http.HttpClient and its default HTTP version logs in and refreshes.

That client offers h2c with its first request, and sends the body at once.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.api_client import PASSWORD
from tests.support.server import serving

PROGRAM = """
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Client {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        String login = "{\\"username\\": \\"ada\\", \\"password\\": \\"" + arguments[1] + "\\"}";
        HttpResponse<String> response = post(client, arguments[0] + "/login", login);
        System.out.println(response.statusCode());
        Matcher token = Pattern.compile("\\"refresh_token\\":\\"([^\\"]+)\\"").matcher(response.body());
        if (token.find()) {
            String refresh = "{\\"refresh_token\\": \\"" + token.group(1) + "\\"}";
            System.out.println(post(client, arguments[0] + "/refresh", refresh).statusCode());
            // A second client begins with /refresh, so that this request has the offer of h2c too.
            HttpClient second = HttpClient.newHttpClient();
            System.out.println(post(second, arguments[0] + "/refresh", refresh).statusCode());
        }
    }

    private static HttpResponse<String> post(HttpClient client, String url, String body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url))
            .timeout(Duration.ofSeconds(30))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        return client.send(request, HttpResponse.BodyHandlers.ofString());
    }
}
"""

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("javac") is None, reason="there is no JDK here: no javac"),
]


def test_the_http_client_of_java_logs_in_and_refreshes(tmp_path: Path):
    """Fails without `_ignore_upgrade` in http_protocol: the service saw no body and returned a 422."""
    (tmp_path / "Client.java").write_text(PROGRAM)
    with serving(tmp_path / "var") as server:
        server.sign_up("ada")
        ended = subprocess.run(
            ["java", "Client.java", server.url, PASSWORD],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert (ended.returncode, ended.stdout.split()) == (0, ["200", "200", "200"]), ended
