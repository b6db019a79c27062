//! What tells the Page's own contacts from a person's.

use std::sync::LazyLock;

use regex::Regex;

use super::Kind;
use super::find::{digits_of, pattern};

/// The part before the @ of an address that is a function's, not a person's.
const ROLES: &[&str] = &[
    "abuse",
    "accounting",
    "accounts",
    "admin",
    "administration",
    "anfrage",
    "anfragen",
    "atencion",
    "atencionalcliente",
    "atendimento",
    "ayuda",
    "bestellung",
    "bestellungen",
    "billing",
    "biuro",
    "booking",
    "bookings",
    "buchhaltung",
    "buchung",
    "care",
    "careers",
    "cliente",
    "clientes",
    "commande",
    "commandes",
    "compliance",
    "comunicacion",
    "contact",
    "contacto",
    "contato",
    "contatti",
    "customer",
    "customercare",
    "customerservice",
    "customersupport",
    "dataprotection",
    "datenschutz",
    "dpo",
    "enquiries",
    "feedback",
    "finance",
    "gdpr",
    "geral",
    "hallo",
    "hello",
    "help",
    "helpdesk",
    "hi",
    "hola",
    "hotel",
    "hr",
    "info",
    "informacion",
    "informations",
    "inquiries",
    "invoice",
    "invoices",
    "jobs",
    "kariera",
    "karriere",
    "klantenservice",
    "kontakt",
    "kundendienst",
    "kundenservice",
    "legal",
    "mail",
    "marketing",
    "media",
    "newsletter",
    "no-reply",
    "noreply",
    "office",
    "order",
    "orders",
    "pedidos",
    "postmaster",
    "press",
    "presse",
    "prensa",
    "privacy",
    "privacidad",
    "rechnung",
    "reception",
    "reception",
    "recrutement",
    "reklamation",
    "reservas",
    "reservation",
    "reservations",
    "reservierung",
    "retail",
    "retoure",
    "retouren",
    "returns",
    "rezeption",
    "sales",
    "secretary",
    "security",
    "sekretariat",
    "service",
    "serviceclient",
    "shop",
    "sklep",
    "spares",
    "store",
    "suporte",
    "support",
    "team",
    "vendas",
    "ventas",
    "verkauf",
    "vertrieb",
    "warranty",
    "webmaster",
    "welcome",
    "werkstatt",
    "workshop",
];

/// Words around a contact by which a business gives it to everybody.
static BUSINESS: LazyLock<Regex> = LazyLock::new(|| {
    let phrases = [
        // English
        r"(?:call|reach|contact|phone|ring|write(?: to)?|e-?mail|mail|text|message|whatsapp|visit)(?:ing)? (?:us|you)\b",
        r"\b(?:our|your|shop|store|office|service|support|contact) (?:tele)?(?:phone|e-?mail|number|hotline|line|team|desk|address)",
        r"\b(?:hot|help|info)[ -]?line\b|\bhelp[ -]?desk\b|\bcustomer (?:service|support|care|relations)\b|\bswitchboard\b|\bfront desk\b",
        r"\b(?:our|the) (?:office|shop|store|workshop|showroom|branch|team|support|sales team|reception|bike shop)\b",
        r"\b(?:phone|telephone|opening|business|office) hours\b|\b(?:sales|service|support) (?:department|enquiries|inquiries)\b",
        // German
        r"\b(?:rufen sie|ruf|ruft|rufe|schreib|schreibt|schreiben sie|kontaktiere|kontaktiert|kontaktieren sie|erreich|erreicht|erreichen sie|mailen sie|besuchen sie) (?:uns|euch|sie|du)\b",
        r"\berreiche(?:n|t)? (?:ich|wir|sie|ihr|du|man) (?:euch|sie|uns|dich)|\b(?:so|hier) erreich",
        r"\b(?:kunden(?:service|dienst|betreuung|hotline)|servicenummer|service-?telefon|unsere[rmn]? (?:telefonnummer|nummer|hotline|team|büro|werkstatt|geschäft|filiale|laden|shop))\b",
        r"\b(?:sind|ist) (?:wir )?(?:unter|telefonisch)\b|\bunter der (?:nummer|telefonnummer)\b|\bimpressum\b",
        // Spanish, Portuguese
        r"\b(?:ll[áa]m[ae]n?os|cont[áa]ct[ae]n?os|escr[íi]b[ae]n?os|vis[íi]t[ae]n?os)\b|\b(?:atenci[óo]n al|servicio al) cliente\b|\bnuestr[oa]s? (?:tel[ée]fono|n[úu]mero|correo|tienda|oficina|equipo)",
        r"\b(?:ligue(?:-nos)?|contacte-nos|contate-nos|fale conosco|fale connosco|escreva-nos|entre em cont[ao]ct?o)\b|\b(?:atendimento|apoio) ao cliente\b|\bnoss[oa] (?:telefone|n[úu]mero|loja|equipe)",
        // French, Italian
        r"\b(?:appelez|contactez|écrivez|ecrivez|joignez|joindre)[ -]?nous\b|\bservice (?:client|clients|clientèle)\b|\b(?:notre|nos) (?:num[ée]ro|t[ée]l[ée]phone|boutique|équipe|magasin)",
        r"\b(?:chiamaci|chiamateci|contattaci|contattateci|scrivici|scriveteci|ci trovi)\b|\b(?:servizio|assistenza) clienti\b|\b(?:nostro|nostra) (?:numero|telefono|negozio)",
        // Dutch, Polish, Turkish, Scandinavian, Czech
        r"\b(?:bel|mail|bezoek|bereik) ons\b|\bklantenservice\b|\bneem contact (?:met ons )?op\b|\bons telefoonnummer\b",
        r"\b(?:zadzwoń|napisz|skontaktuj się)(?: do| z)? nam?i?s?\b|\bobsług[ai] klienta\b|\binfolini[ai]\b|\bnasz numer\b",
        r"\bbizi arayın|\bbize (?:ulaşın|yazın)|\bmüşteri hizmetleri|\bring (?:til )?oss\b|\bkontakta oss\b|\bkundeservice\b|\bkundtjänst\b|\bzákaznick",
        // Other scripts
        "звоните нам|позвоните нам|напишите нам|свяжитесь с нами|служба поддержки|горячая линия|наш телефон|зателефонуйте|служба підтримки|гаряча лінія",
        "καλέστε μας|επικοινωνήστε μαζί|εξυπηρέτηση πελατών|اتصل بنا|اتصلوا بنا|خدمة العملاء|راسلنا",
        "お問い合わせ|お客様相談|カスタマー|联系我们|客服|致电|聯絡我們|고객센터|고객 센터|문의",
    ];
    pattern(&format!("(?i){}", phrases.join("|")))
});

/// Headings under which a business writes how to reach it.
static HEADING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^#{0,6}\s*(?:[0-9.]+\s*)?(?:contacts?|contact (?:us|details|information)|get in touch|how to reach us|reach us|imprint|impressum|kontakte?|kontaktdaten|so erreichen sie uns|contacto|contactos|contato|contatti|nous contacter|mentions légales|kontakty|iletişim|kontakta oss|контакты|контакти|επικοινωνία|اتصل بنا|お問い合わせ|联系我们|聯絡我們|연락처|(?:customer )?(?:service|support)|opening hours|öffnungszeiten)\b",
    )
});

/// Numbers that the called business pays for, which no person has: +800, and national ones of many countries.
static FREEPHONE: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        r"(?:(?:00|\+)?1)?8(?:00|33|44|55|66|77|88)[0-9]{7}",
        r"(?:00|\+)800[0-9]{8}",
        r"(?:(?:00|\+)[1-9][0-9]{0,2})?0?(?:800|900)[0-9]{4,8}",
        r"0180[0-9]{5,8}",
    ];
    pattern(&format!("^(?:{})$", forms.join("|")))
});

pub(super) fn speaks_of_the_business(text: &str) -> bool {
    BUSINESS.is_match(text)
}

pub(super) fn heads_contacts(heading: &str) -> bool {
    HEADING.is_match(heading.trim())
}

pub(super) fn is_a_roles(kind: Kind, original: &str) -> bool {
    match kind {
        Kind::Email => {
            let local = original.split('@').next().unwrap_or_default().to_lowercase();
            // `service-at@`, `info.wien@`
            let first = local.split(['.', '+', '-', '_']).next().unwrap_or_default();
            ROLES.contains(&local.as_str()) || ROLES.contains(&first)
        }
        Kind::Phone => {
            let plain: String = original.chars().filter(|c| c.is_ascii_digit() || *c == '+').collect();
            FREEPHONE.is_match(&plain)
        }
        _ => false,
    }
}

/// Whether a list of the owner's names it: an address, a domain as `@shop.example`, or a number in any notation.
pub(super) fn is_listed<'a>(kind: Kind, original: &str, mut listed: impl Iterator<Item = &'a String>) -> bool {
    match kind {
        Kind::Email => {
            let address = original.to_lowercase();
            listed.any(|entry| {
                let entry = entry.trim().to_lowercase();
                address == entry || (entry.starts_with('@') && address.ends_with(&entry))
            })
        }
        Kind::Phone => {
            let number = significant(original);
            listed.any(|entry| !entry.contains('@') && is_the_same_number(&significant(entry), &number))
        }
        _ => false,
    }
}

/// The digits without what notations differ in: `00` or `+` before the country, and a trunk `(0)`.
fn significant(number: &str) -> String {
    let without_trunk = number.replace("(0)", "");
    let digits: String =
        digits_of(&without_trunk).into_iter().filter_map(|digit| char::from_digit(digit, 10)).collect();
    digits.trim_start_matches('0').to_owned()
}

/// Equal, or one is the other with its country before it.
fn is_the_same_number(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    short.len() >= 6 && long.ends_with(short) && long.len() - short.len() <= 3
}
