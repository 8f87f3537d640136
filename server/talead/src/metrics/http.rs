//! As much of HTTP/1.1 as a scraper needs: one GET a connection.

use std::future::Future;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;

/// Longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Show,
    Unauthorized,
    NotFound,
    Malformed,
}

/// Reads one request and answers it. `content` is made only for who may see it.
pub(super) async fn answer(
    mut stream: Box<dyn Stream>,
    token: Option<&str>,
    content: impl Future<Output = String>,
) -> io::Result<()> {
    let mut request = Vec::new();
    let verdict = loop {
        if let Some(verdict) = judge(&request, token) {
            break verdict;
        }
        if request.len() >= MAX_REQUEST_BYTES || stream.read_buf(&mut request).await? == 0 {
            break Verdict::Malformed;
        }
    };
    let (status, body) = match verdict {
        Verdict::Show => ("200 OK", content.await),
        Verdict::Unauthorized => {
            ("401 Unauthorized", "the token of this system's metrics.token is needed\n".to_owned())
        }
        Verdict::NotFound => ("404 Not Found", "there is /metrics here\n".to_owned()),
        // Who does not even speak HTTP is told nothing.
        Verdict::Malformed => return stream.shutdown().await,
    };
    let challenge = if verdict == Verdict::Unauthorized { "WWW-Authenticate: Bearer\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {length}\r\n{challenge}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// What to answer to a request; `None`: there is more of it to come.
fn judge(request: &[u8], token: Option<&str>) -> Option<Verdict> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some(Verdict::Malformed),
    }
    let given = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("authorization"));
    let allowed = token.is_none_or(|token| {
        let wanted = format!("Bearer {token}");
        given.is_some_and(|header| same(header.value, wanted.as_bytes()))
    });
    Some(match (allowed, parsed.method, parsed.path) {
        (false, ..) => Verdict::Unauthorized,
        (true, Some("GET"), Some("/metrics" | "/")) => Verdict::Show,
        (true, Some("GET"), _) => Verdict::NotFound,
        _ => Verdict::Malformed,
    })
}

/// Compares in a time that does not tell how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_token_sees_anything() {
        let token = Some("0123456789abcdef");
        let with = |lines: &str| judge(format!("GET /metrics HTTP/1.1\r\n{lines}\r\n").as_bytes(), token);
        assert_eq!(with("authorization: Bearer 0123456789abcdef\r\n"), Some(Verdict::Show));
        for wrong in ["", "Authorization: Bearer 0123456789abcde\r\n", "Authorization: Basic 0123456789abcdef\r\n"] {
            assert_eq!(with(wrong), Some(Verdict::Unauthorized), "{wrong}");
        }
        // Without it one does not even learn what there is.
        assert_eq!(judge(b"GET /x HTTP/1.1\r\n\r\n", token), Some(Verdict::Unauthorized));
        assert_eq!(judge(b"GET /x HTTP/1.1\r\n\r\n", None), Some(Verdict::NotFound));
        assert_eq!(judge(b"GET /metrics HTTP/1.1\r\n", None), None);
        assert_eq!(judge(b"\0\0\0\x01", None), Some(Verdict::Malformed));
        assert_eq!(judge(b"POST /metrics HTTP/1.1\r\n\r\n", None), Some(Verdict::Malformed));
    }
}
