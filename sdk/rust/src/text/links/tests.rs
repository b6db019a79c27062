use super::*;

#[test]
fn endings_are_sorted() {
    assert!(ENDINGS.is_sorted());
}

#[test]
fn addresses_and_their_hosts() {
    let table: [(&str, &str, &str, Option<Trick>); 22] = [
        ("see https://Shop.Example.com/a?b=1.", "https://Shop.Example.com/a?b=1", "shop.example.com", None),
        ("(www.example.com)", "www.example.com", "example.com", None),
        ("go to example.at/hilfe, please", "example.at/hilfe", "example.at", None),
        ("example.com", "example.com", "example.com", None),
        ("EXAMPLE.COM!", "EXAMPLE.COM", "example.com", None),
        ("https://bank.com@evil.com/x", "https://bank.com@evil.com/x", "evil.com", Some(Trick::UserInfo)),
        ("https://bank.com\\@evil.com", "https://bank.com\\@evil.com", "bank.com", Some(Trick::UserInfo)),
        ("http://192.168.0.1/a", "http://192.168.0.1/a", "192.168.0.1", Some(Trick::Number)),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7", Some(Trick::Number)),
        ("http://3232235521", "http://3232235521", "3232235521", Some(Trick::Number)),
        ("http://0x7f.1", "http://0x7f.1", "0x7f.1", Some(Trick::Number)),
        ("http://[::1]:80/", "http://[::1]:80/", "[::1]:80", Some(Trick::Number)),
        ("https://аpple.com", "https://аpple.com", "аpple.com", Some(Trick::International)),
        ("https://xn--pple-43d.com", "https://xn--pple-43d.com", "xn--pple-43d.com", Some(Trick::International)),
        ("xn--pple-43d.com", "xn--pple-43d.com", "xn--pple-43d.com", Some(Trick::International)),
        ("evil[.]com/x", "evil[.]com/x", "evil.com", Some(Trick::Disguised)),
        ("evil。com", "evil。com", "evil.com", Some(Trick::Disguised)),
        ("ev\u{200b}il.com", "ev\u{200b}il.com", "evil.com", Some(Trick::Disguised)),
        ("visit evil dot com now", "evil dot com", "evil.com", Some(Trick::Disguised)),
        ("https://ex%61mple.com/", "https://ex%61mple.com/", "ex%61mple.com", Some(Trick::Disguised)),
        ("hxxps://evil.example/x", "hxxps://evil.example/x", "evil.example", None),
        ("HTTPS:/evil.com", "HTTPS:/evil.com", "evil.com", None),
    ];
    for (text, address, host, trick) in table {
        let links = find(text);
        assert_eq!(links.len(), 1, "{text}: {links:?}");
        let link = &links[0];
        assert_eq!((&text[link.address.0..link.address.1], link.host.as_str(), link.trick), (address, host, trick));
        assert_eq!(link.kind, Kind::Web, "{text}");
    }
}

#[test]
fn what_is_no_address() {
    for text in [
        "It costs 3.50 today.",
        "Done.It works.",
        "z.B. morgen, e.g. today at 9 a.m.",
        "We open at 9:30.",
        "Note: this is fine",
        "version 1.2.3",
        "invoice.pdf",
        "polka dot common dress",
        "22.11.2026",
        "What?!... ok",
        "and/or",
    ] {
        assert_eq!(find(text), [], "{text}");
    }
}

#[test]
fn emails_are_told_from_links() {
    let links = find("write to Anna.Huber+shop@Example.com, or mailto:b@example.org?subject=x");
    let found: Vec<_> = links.iter().map(|link| (link.kind, link.host.as_str())).collect();
    assert_eq!(found, [(Kind::Email, "example.com"), (Kind::Email, "example.org")]);
}

#[test]
fn markdown_links_keep_their_label() {
    let text = "See [our page](https://example.com/a_(b)) and ![x](evil.com/y.png).";
    let links = find(text);
    let found: Vec<_> =
        links.iter().map(|link| (&text[link.start..link.end], link.label.as_deref(), link.host.as_str())).collect();
    assert_eq!(
        found,
        [
            ("[our page](https://example.com/a_(b))", Some("our page"), "example.com"),
            ("![x](evil.com/y.png)", Some("x"), "evil.com")
        ]
    );
}

#[test]
fn schemes_that_run_code_are_dangerous() {
    for text in ["javascript:alert(1)", "click [here](javascript:alert(1))", "data:text/html;base64,xx"] {
        assert!(find(text).iter().any(|link| link.kind == Kind::Dangerous), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn ranges_are_ascending_and_on_boundaries(text in "[a-z.@/:\\[\\]() ä。dot]{0,80}") {
        let mut last = 0;
        for link in find(&text) {
            proptest::prop_assert!(text.get(link.address.0..link.address.1).is_some_and(|address| !address.is_empty()));
            proptest::prop_assert!(link.start <= link.address.0 && link.address.1 <= link.end);
            proptest::prop_assert!(link.address.0 >= last);
            last = link.end;
        }
    }
}
