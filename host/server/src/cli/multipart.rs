//! Writing a `multipart/form-data` body (RFC 7578).

use uuid::Uuid;

/// A body in the making. Everything is in memory: the largest document is 8 MiB.
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// The boundary is random, so no document can hold it but by intent; and whoever wrote the document does not know it.
    pub fn new() -> Self {
        Self { boundary: format!("frontdesk-{}", Uuid::new_v4().simple()), body: Vec::new() }
    }

    pub fn text(&mut self, name: &str, value: &str) {
        let disposition = format!("form-data; name=\"{}\"", quoted(name));
        self.part(&disposition, "text/plain; charset=utf-8", value.as_bytes());
    }

    pub fn file(&mut self, name: &str, file_name: &str, bytes: &[u8]) {
        let disposition = format!("form-data; name=\"{}\"; filename=\"{}\"", quoted(name), quoted(file_name));
        self.part(&disposition, "application/octet-stream", bytes);
    }

    fn part(&mut self, disposition: &str, content_type: &str, bytes: &[u8]) {
        let head = format!(
            "--{}\r\nContent-Disposition: {disposition}\r\nContent-Type: {content_type}\r\n\r\n",
            self.boundary
        );
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
    }

    /// The content type and the body.
    pub fn finish(mut self) -> (String, Vec<u8>) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }
}

/// As browsers do it (HTML, "multipart/form-data encoding algorithm").
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::{FromRequest, Multipart, Request};

    use super::*;

    #[tokio::test]
    async fn the_host_reads_what_the_command_line_writes() {
        let mut form = Form::new();
        form.text("title", "Größe & \"Maß\"");
        form.file("file", "a \"b\"\n.md", b"--frontdesk\r\n\x00\xff");
        let (content_type, body) = form.finish();
        let request = Request::builder().header("content-type", content_type).body(Body::from(body)).unwrap();
        let mut read = Multipart::from_request(request, &()).await.unwrap();

        let part = read.next_field().await.unwrap().unwrap();
        assert_eq!(part.name(), Some("title"));
        assert_eq!(part.text().await.unwrap(), "Größe & \"Maß\"");
        let part = read.next_field().await.unwrap().unwrap();
        assert_eq!(part.name(), Some("file"));
        assert_eq!(part.file_name(), Some("a %22b%22%0A.md"));
        assert_eq!(&part.bytes().await.unwrap()[..], b"--frontdesk\r\n\x00\xff");
        assert!(read.next_field().await.unwrap().is_none());
    }
}
