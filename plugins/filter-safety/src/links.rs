//! Web addresses: only hosts on the list may be sent.

use frontdesk_policy_sdk::settings::Errors;
use frontdesk_policy_sdk::text::fold;
use frontdesk_policy_sdk::text::links::{Kind, Link, Trick, find};

use crate::Review;
use crate::settings::{Action, Links, Settings};

/// Brings the list into the form of [`Link::host`]; a mistake is a host with a scheme, a path or spaces.
pub(crate) fn check(settings: &mut Settings, errors: &mut Errors) {
    for (index, host) in settings.links.allowed_hosts.iter_mut().enumerate() {
        let plain = host.trim_end_matches('.').to_lowercase();
        let plain = plain.strip_prefix("www.").unwrap_or(&plain).to_owned();
        let named = plain.strip_prefix("*.").unwrap_or(&plain);
        if named.is_empty() || named.contains(['/', ':', '@', ' ', '*', '?']) {
            let message = format!("`{host}` is not a host; write only the name, such as example.com or *.example.com");
            errors.push(format!("/links/allowed-hosts/{index}"), message);
        }
        *host = plain;
    }
}

pub(crate) fn review(settings: &Links, review: &mut Review) {
    if settings.action == Action::Off {
        return;
    }
    for link in find(review.text) {
        if link.kind == Kind::Email {
            continue;
        }
        let Some((rule, detail)) = objection(settings, review, &link) else {
            // Messenger shows markdown links as they are; what is allowed is written so that it can be tapped.
            if let Some(label) = &link.label {
                let address = &review.text[link.address.0..link.address.1];
                let plain = if label.trim() == address { address.to_owned() } else { format!("{label}: {address}") };
                review.edits.replace(link.start, link.end, &plain, "markdown:link");
            }
            continue;
        };
        let label = link.label.as_deref().unwrap_or("").to_owned();
        // A label that is itself an address would be the next link.
        let label = if find(&label).is_empty() { label } else { String::new() };
        review.found(settings.action, rule, detail, (link.start, link.end), &label);
    }
}

fn objection(settings: &Links, review: &Review, link: &Link) -> Option<(&'static str, &'static str)> {
    if link.kind == Kind::Dangerous {
        return Some(("link:dangerous", "The draft contains an address that runs code or carries its own content."));
    }
    let listed = settings.allowed_hosts.iter().any(|allowed| covers(allowed, &link.host));
    match link.trick {
        Some(Trick::UserInfo) => {
            return Some(("link:user-info", "The draft contains a link that names another host before its real one."));
        }
        Some(Trick::Disguised) => return Some(("link:disguised", "The draft contains a link that hides its host.")),
        Some(Trick::Number) if !listed => {
            return Some(("link:number", "The draft contains a link to a numeric address."));
        }
        Some(Trick::International) if !listed => {
            let plain = fold::text(&link.host);
            let imitates = settings.allowed_hosts.iter().any(|allowed| covers(allowed, &plain));
            return Some(if imitates {
                ("link:look-alike", "The draft contains a link whose host imitates an allowed one.")
            } else {
                ("link:not-allowed", "The draft contains a link to a host that is not on the list.")
            });
        }
        _ => {}
    }
    let from_passage = || {
        settings.allow_from_passages
            && review.passages.iter().any(|passage| {
                passage.text.contains(&link.host[..])
                    && find(&passage.text).iter().any(|known| known.host == link.host && known.trick.is_none())
            })
    };
    (!listed && !from_passage())
        .then_some(("link:not-allowed", "The draft contains a link to a host that is not on the list."))
}

/// `example.com` covers itself; `*.example.com` also every subdomain.
fn covers(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(parent) => host == parent || host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
        None => host == allowed,
    }
}
