//! The page that a suspended tenant's host names show: to customers, and to the owner, who can pay. The page never
//! names the tenant. Pure.

use crate::api::plan::SuspendedPage;

/// A page in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its language, as in `Accept-Language` (ISO 639-1).
    pub language: &'static str,
    /// HTML, at most 4,096 bytes, which is the limit of Envoy Gateway.
    pub body: String,
}

struct Translation {
    language: &'static str,
    title: &'static str,
    customer: &'static str,
    owner: &'static str,
    settle: &'static str,
}

const WORDS: [Translation; 4] = [
    Translation {
        language: "en",
        title: "This help desk is paused",
        customer: "If you came here with a question: please reach the company in another way for now. Your earlier requests are kept.",
        owner: "If this is your help desk: your data is safe. Once the account is settled, everything is back as it was.",
        settle: "Settle the account",
    },
    Translation {
        language: "de",
        title: "Dieser Helpdesk pausiert",
        customer: "Sie haben eine Frage? Bitte wenden Sie sich vorerst auf anderem Weg an das Unternehmen. Ihre bisherigen Anfragen bleiben erhalten.",
        owner: "Das ist Ihr Helpdesk? Ihre Daten sind sicher. Sobald das Konto ausgeglichen ist, ist alles wieder wie zuvor.",
        settle: "Konto ausgleichen",
    },
    Translation {
        language: "fr",
        title: "Ce centre d’assistance est suspendu",
        customer: "Vous avez une question ? Merci de joindre l’entreprise autrement pour le moment. Vos demandes précédentes sont conservées.",
        owner: "C’est votre centre d’assistance ? Vos données sont en sécurité. Dès que le compte est réglé, tout revient comme avant.",
        settle: "Régler le compte",
    },
    Translation {
        language: "es",
        title: "Este centro de ayuda está en pausa",
        customer: "¿Tiene una pregunta? Por ahora, contacte con la empresa por otra vía. Sus consultas anteriores se conservan.",
        owner: "¿Es su centro de ayuda? Sus datos están a salvo. En cuanto la cuenta esté al día, todo volverá a estar como antes.",
        settle: "Poner la cuenta al día",
    },
];

/// The page in every language; the first is the default.
pub fn suspended(texts: &SuspendedPage) -> Vec<Page> {
    WORDS.iter().map(|words| Page { language: words.language, body: body(words, texts) }).collect()
}

fn body(words: &Translation, texts: &SuspendedPage) -> String {
    let paragraphs = match &texts.text {
        Some(text) => format!("<p>{}</p>", escaped(text)),
        None => format!("<p>{}</p><p class=\"o\">{}</p>", words.customer, words.owner),
    };
    let link =
        texts.billing_url.as_ref().map(|url| format!("<p><a href=\"{}\">{}</a></p>", escaped(url), words.settle)).unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{}</title><style>{STYLE}</style></head>\
         <body><main><svg viewBox=\"0 0 48 48\" aria-hidden=\"true\"><circle cx=\"24\" cy=\"24\" r=\"22\"/><path d=\"M19 16v16M29 16v16\"/></svg>\
         <h1>{}</h1>{paragraphs}{link}</main></body></html>\n",
        words.language, words.title, words.title
    )
}

const STYLE: &str = ":root{color-scheme:light dark;--b:#f5f6f8;--c:#fff;--t:#1c2330;--m:#5a6477;--a:#2457c5}\
@media(prefers-color-scheme:dark){:root{--b:#12151b;--c:#1b2029;--t:#e8ebf1;--m:#a3acbd;--a:#8fb2ff}}\
*{box-sizing:border-box}body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--b);color:var(--t);\
font:17px/1.55 system-ui,-apple-system,Segoe UI,Roboto,sans-serif;padding:24px}\
main{max-width:34rem;background:var(--c);border-radius:16px;padding:40px;box-shadow:0 1px 2px #0002,0 12px 32px #0001}\
svg{width:48px;fill:none;stroke:var(--a);stroke-width:3;stroke-linecap:round}\
h1{font-size:1.6rem;line-height:1.25;margin:16px 0 12px}p{margin:0 0 12px}.o{color:var(--m)}\
a{display:inline-block;margin-top:8px;padding:10px 18px;border-radius:10px;background:var(--a);color:var(--c);text-decoration:none}\
a:focus-visible{outline:3px solid var(--t);outline-offset:2px}";

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_fits_into_what_envoy_gateway_takes_even_with_the_longest_text() {
        let longest = SuspendedPage { text: Some("&".repeat(400)), billing_url: Some(format!("https://{}", "x".repeat(245))) };
        for texts in [SuspendedPage::default(), longest] {
            for page in suspended(&texts) {
                let sent = page.body.replace('%', "%%").len();
                assert!(sent <= 4096, "{} takes {sent} bytes", page.language);
            }
        }
    }

    #[test]
    fn a_plans_text_replaces_the_sentences_and_cannot_become_markup() {
        let texts = SuspendedPage { text: Some("<script>alert(1)</script>".into()), billing_url: Some("https://pay.example/<b>".into()) };
        for page in suspended(&texts) {
            assert!(!page.body.contains("<script>") && !page.body.contains("<b>"), "{}", page.body);
            assert!(page.body.contains("&lt;script&gt;"));
        }
    }
}
