//! Names of components in an OCI registry: `oci://registry/repository[:tag][@sha256:digest]`.
//!
//! A chain names a component by the digest of its manifest ([`OciReference`]), because a tag may mean another component
//! tomorrow, and a revision is what it was when it was judged. A person at the command line may use a tag ([`OciName`]) to
//! find out the digest. The grammar is the one of the OCI distribution specification 1.1, plus a registry that is always
//! written out. Nothing here talks to a registry.

/// How every name begins.
pub const OCI_SCHEME: &str = "oci://";
/// Longest repository, in bytes; the distribution specification leaves it to the registries, and they allow this.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest host with its port, in bytes.
const REGISTRY_BYTES_MAX: usize = 255;
/// Longest tag, in bytes; the specification's own limit.
const TAG_BYTES_MAX: usize = 128;

/// A name of something in a registry, by tag, by digest, or by neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciName {
    /// Host and port, such as `ghcr.io` or `127.0.0.1:5000`.
    pub registry: String,
    /// Path of the repository, such as `acme/policies/classify`.
    pub repository: String,
    /// The tag, if one is named.
    pub tag: Option<String>,
    /// The manifest's SHA-256 in lower-case hexadecimal, if it is named.
    pub digest: Option<String>,
}

impl OciName {
    /// Reads a name.
    ///
    /// # Errors
    /// What was found and what was expected, as a sentence without the name itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix(OCI_SCHEME)
            .ok_or_else(|| format!("`{}` does not begin with {OCI_SCHEME}", text.escape_debug()))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(sha256(digest)?)),
            None => (rest, None),
        };
        let (registry, path) = rest
            .split_once('/')
            .ok_or_else(|| "it names no repository; oci://registry/repository@sha256:… is expected".to_owned())?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(checked_tag(tag)?)),
            None => (path, None),
        };
        Ok(Self { registry: checked_registry(registry)?, repository: checked_repository(repository)?, tag, digest })
    }

    /// The reference that pins what this name means, once its digest is known.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> Option<OciReference> {
        let digest = sha256(&format!("sha256:{digest}")).ok()?;
        Some(OciReference { registry: self.registry.clone(), repository: self.repository.clone(), digest })
    }
}

impl std::fmt::Display for OciName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{OCI_SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

/// A component in a registry, named by its content: the digest is that of its manifest, which names the component's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OciReference {
    registry: String,
    repository: String,
    digest: String,
}

impl OciReference {
    /// Reads what a chain says. A tag beside the digest is taken as a remark and dropped.
    ///
    /// # Errors
    /// What is wrong, with the line to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = OciName::parse(text)?;
        match &name.digest {
            Some(digest) => Ok(Self { registry: name.registry, repository: name.repository, digest: digest.clone() }),
            None => {
                let bare = OciName { tag: None, ..name.clone() };
                let found = match &name.tag {
                    Some(tag) => format!("the tag `{tag}`, which may mean another component tomorrow"),
                    None => "no digest".to_owned(),
                };
                Err(format!(
                    "it has {found}; write component = \"{bare}@sha256:<digest of the manifest>\" (`policyctl inspect \
                     {name}` prints this line with the digest of today)"
                ))
            }
        }
    }

    /// Host and port.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// SHA-256 of the manifest, in lower-case hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The same as a name without a tag.
    #[must_use]
    pub fn name(&self) -> OciName {
        OciName {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(self.digest.clone()),
        }
    }
}

impl std::fmt::Display for OciReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{OCI_SCHEME}{}/{}@sha256:{}", self.registry, self.repository, self.digest)
    }
}

fn sha256(text: &str) -> Result<String, String> {
    let digits = text
        .strip_prefix("sha256:")
        .filter(|digits| digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    digits.map(str::to_owned).ok_or_else(|| {
        format!("`@{}` is no digest; @sha256: and 64 lower-case hexadecimal digits are expected", text.escape_debug())
    })
}

fn checked_registry(text: &str) -> Result<String, String> {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let host_fits = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && !host.starts_with(['-', '.'])
        && !host.ends_with(['-', '.']);
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if host_fits && port_fits && text.len() <= REGISTRY_BYTES_MAX {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("`{}` is no registry; a host such as ghcr.io or 127.0.0.1:5000 is expected", text.escape_debug()))
}

fn checked_repository(text: &str) -> Result<String, String> {
    // [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* between slashes.
    let part_fits = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends_fit = part.bytes().next().is_some_and(inner) && part.bytes().last().is_some_and(inner);
        let separators_fit = part
            .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
            .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'));
        ends_fit && separators_fit
    };
    if text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(part_fits) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{}` is no repository; lower-case letters and digits, joined by `.`, `_`, `-` and `/`, are expected",
        text.escape_debug()
    ))
}

fn checked_tag(text: &str) -> Result<String, String> {
    let first_fits = text.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
    let rest_fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first_fits && rest_fits && text.len() <= TAG_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(format!("`{}` is no tag; letters, digits, `_`, `.` and `-` are expected", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_read_and_written_alike() {
        for rest in ["ghcr.io/acme/policies/classify", "127.0.0.1:5000/a", "localhost/a.b_c__d--e/f"] {
            for tail in
                [String::new(), ":1.2.0-rc.1".to_owned(), format!("@sha256:{DIGEST}"), format!(":v1@sha256:{DIGEST}")]
            {
                let text = format!("oci://{rest}{tail}");
                assert_eq!(OciName::parse(&text).map(|name| name.to_string()), Ok(text));
            }
        }
        let name = OciName::parse("oci://GHCR.io:443/acme/rules:v1").unwrap();
        assert_eq!((name.registry.as_str(), name.repository.as_str()), ("ghcr.io:443", "acme/rules"));
        assert_eq!(
            name.pinned(DIGEST).map(|it| it.to_string()),
            Some(format!("oci://ghcr.io:443/acme/rules@sha256:{DIGEST}"))
        );
        assert_eq!(name.pinned("abc"), None);
    }

    #[test]
    fn what_is_no_name_is_refused_in_words() {
        let cases = [
            ("ghcr.io/a@sha256:1", "does not begin with oci://"),
            ("oci://ghcr.io", "names no repository"),
            ("oci:///a", "is no registry"),
            ("oci://-host/a", "is no registry"),
            ("oci://host:99999/a", "is no registry"),
            ("oci://user:secret@host/a", "is no digest"),
            ("oci://host/", "is no repository"),
            ("oci://host/../a", "is no repository"),
            ("oci://host/a//b", "is no repository"),
            ("oci://host/Acme", "is no repository"),
            ("oci://host/a___b", "is no repository"),
            ("oci://host/a?x=1", "is no repository"),
            ("oci://host/a:", "is no tag"),
            ("oci://host/a:-x", "is no tag"),
            ("oci://host/a@sha512:00", "is no digest"),
            ("oci://host/a@sha256:00", "is no digest"),
        ];
        for (text, expected) in cases {
            let error = OciName::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_chain_needs_a_digest_and_is_told_what_to_write() {
        let pinned = format!("oci://ghcr.io/acme/rules@sha256:{DIGEST}");
        assert_eq!(OciReference::parse(&pinned).map(|it| it.to_string()), Ok(pinned.clone()));
        let tagged = format!("oci://ghcr.io/acme/rules:1.0@sha256:{DIGEST}");
        assert_eq!(OciReference::parse(&tagged).map(|it| it.to_string()), Ok(pinned));
        let error = OciReference::parse("oci://ghcr.io/acme/rules:1.0").unwrap_err();
        assert!(error.contains("the tag `1.0`"), "{error}");
        assert!(error.contains("component = \"oci://ghcr.io/acme/rules@sha256:"), "{error}");
        assert!(error.contains("policyctl inspect oci://ghcr.io/acme/rules:1.0"), "{error}");
        assert!(OciReference::parse("oci://ghcr.io/acme/rules").unwrap_err().contains("no digest"));
    }
}
