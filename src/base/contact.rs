//! E-mail addresses and phone numbers, normalised at the door (rows O29 to O31).

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::error::ParseError;

/// An e-mail address in the one form that is looked up, stored, counted and sent to (row O30).
///
/// - White space around the address is dropped; everything else must be part of it.
/// - The local part is ASCII: atoms joined by dots (RFC 5322, `dot-atom`), at most 64 bytes, in lower
///   case. Quoted strings and comments are refused. Tags and dots stay: they are the provider's business.
/// - The domain goes through UTS-46 with all its checks and is kept as A-labels, in lower case, without
///   a dot at its end. It has at least two labels, and the last one is letters (two or more) or an
///   A-label. Addresses in brackets (`[192.0.2.1]`) are refused: nothing ties one to a person for long.
/// - Characters that can't be seen are refused, even where UTS-46 would drop them.
///
/// ```
/// use tower_mfa::ident::Email;
/// assert_eq!(Email::parse(" Zoe+x@BÜCHER.example ")?.as_str(), "zoe+x@xn--bcher-kva.example");
/// assert!(Email::parse("\"zoe\"@shop.example").is_err());
/// # Ok::<(), tower_mfa::ident::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// A phone number in E.164 form (row O31).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone(String);

/// Where a code can be sent.
///
/// Exhaustive on purpose: a delivery that doesn't know a kind of contact must not compile.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contact {
    /// An e-mail address.
    Email(Email),
    /// A phone number.
    Phone(Phone),
}

impl Email {
    /// Reads and normalises an address.
    ///
    /// # Errors
    /// If it isn't an address by the rule on the type.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        canonical(text).map(Self).ok_or(ParseError::new("e-mail address"))
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough to recognise one's own address, not enough to learn it: `a***@s***.example`.
    ///
    /// No address has this form, as no domain holds a `*`.
    ///
    /// ```
    /// use tower_mfa::ident::Email;
    /// assert_eq!(Email::parse("alice@shop.example")?.masked(), "a***@s***.example");
    /// # Ok::<(), tower_mfa::ident::ParseError>(())
    /// ```
    pub fn masked(&self) -> String {
        let (local, domain) = self.0.split_once('@').unwrap_or_default();
        let (rest, last) = domain.rsplit_once('.').unwrap_or_default();
        let label = rest.split('.').next().unwrap_or_default();
        format!("{}***@{}***.{last}", initial(local), initial(label))
    }
}

impl Phone {
    /// Reads a number in E.164 form: `+`, then 7 to 15 digits, the first not zero. What a person types is read by
    /// `Phone::from_typed` (feature `phone`).
    ///
    /// # Errors
    /// If it isn't one.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let digits = text.strip_prefix('+').unwrap_or_default();
        let fits = (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseError::new("phone number")) }
    }

    /// The E.164 form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough to recognise one's own number: its last two digits. No number has this form.
    ///
    /// ```
    /// use tower_mfa::ident::Phone;
    /// assert_eq!(Phone::parse("+36301111142")?.masked(), "+***42");
    /// # Ok::<(), tower_mfa::ident::ParseError>(())
    /// ```
    pub fn masked(&self) -> String {
        let end = self.0.get(self.0.len().saturating_sub(2)..).unwrap_or_default();
        format!("+***{end}")
    }
}

impl Contact {
    /// Reads what [`Contact::as_str`] gives. What holds an `@` is an address, anything else a number.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.contains('@') {
            Email::parse(text).map(Self::Email)
        } else {
            Phone::parse(text).map(Self::Phone)
        }
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Email(email) => email.as_str(),
            Self::Phone(phone) => phone.as_str(),
        }
    }

    /// Enough to recognise, not enough to learn.
    pub fn masked(&self) -> String {
        match self {
            Self::Email(email) => email.masked(),
            Self::Phone(phone) => phone.masked(),
        }
    }

    /// The address, if it is one.
    pub fn email(&self) -> Option<&Email> {
        match self {
            Self::Email(email) => Some(email),
            Self::Phone(_) => None,
        }
    }

    /// The number, if it is one.
    pub fn phone(&self) -> Option<&Phone> {
        match self {
            Self::Phone(phone) => Some(phone),
            Self::Email(_) => None,
        }
    }
}

impl From<Email> for Contact {
    fn from(email: Email) -> Self {
        Self::Email(email)
    }
}

impl From<Phone> for Contact {
    fn from(phone: Phone) -> Self {
        Self::Phone(phone)
    }
}

/// Whether an address was made up for a user who has none: nothing is ever sent to it.
pub(crate) fn is_fake(email: &Email) -> bool {
    email.0.ends_with("@stfakeemail.supertokens.com") || email.0.ends_with(".fakeemail.com")
}

/// Longer texts aren't looked at: no address has more than 254 characters (RFC 5321, 4.5.3.1.3).
const TEXT: usize = 1024;
const ADDRESS: usize = 254;
const LOCAL: usize = 64;

fn canonical(text: &str) -> Option<String> {
    if text.len() > TEXT {
        return None;
    }
    let (local, domain) = text.trim_ascii().split_once('@')?;
    let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext));
    if !atoms || local.len() > LOCAL {
        return None;
    }
    let address = format!("{}@{}", local.to_ascii_lowercase(), a_labels(domain)?);
    (address.len() <= ADDRESS).then_some(address)
}

/// RFC 5322, 3.2.3.
fn atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn a_labels(domain: &str) -> Option<String> {
    let ascii = to_ascii(domain)?;
    // Decoded and encoded again: an A-label that another spelling would give is refused, not mended.
    let (unicode, sound) =
        Uts46::new().to_unicode(ascii.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    if sound.is_err() || to_ascii(&unicode)? != ascii {
        return None;
    }
    if domain.chars().chain(unicode.chars()).any(invisible) {
        return None;
    }
    let (_, last) = ascii.rsplit_once('.')?;
    let letters = last.len() >= 2 && last.bytes().all(|b| b.is_ascii_lowercase());
    (letters || last.starts_with("xn--")).then_some(ascii)
}

fn to_ascii(domain: &str) -> Option<String> {
    let ascii = Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify)
        .ok()?;
    Some(ascii.into_owned())
}

/// The code points that Unicode calls default ignorable.
fn invisible(c: char) -> bool {
    matches!(
        u32::from(c),
        0x00AD
            | 0x034F
            | 0x061C
            | 0x115F..=0x1160
            | 0x17B4..=0x17B5
            | 0x180B..=0x180F
            | 0x200B..=0x200F
            | 0x202A..=0x202E
            | 0x2060..=0x206F
            | 0x3164
            | 0xFE00..=0xFE0F
            | 0xFEFF
            | 0xFFA0
            | 0xFFF0..=0xFFF8
            | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF
    )
}

/// The first character, unless it is all there is.
fn initial(part: &str) -> &str {
    if part.len() > 1 { part.get(..1).unwrap_or_default() } else { "" }
}

macro_rules! contact_impls {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// Contacts are personal data: `Debug` doesn't print them (row G02).
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(D::Error::custom)
            }
        }
    };
}

contact_impls!(Email);
contact_impls!(Phone);
contact_impls!(Contact);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn email(text: &str) -> Option<String> {
        Email::parse(text).ok().map(|email| email.0)
    }

    /// Written by hand: input, and what it is or that it is nothing.
    const TABLE: &[(&str, Option<&str>)] = &[
        ("a@shop.example", Some("a@shop.example")),
        ("Alice@Shop.Example", Some("alice@shop.example")),
        (" \t alice@shop.example\r\n", Some("alice@shop.example")),
        ("alice+tag@shop.example", Some("alice+tag@shop.example")),
        ("al.i.ce@shop.example", Some("al.i.ce@shop.example")),
        ("o'neil@shop.example", Some("o'neil@shop.example")),
        ("a@a-b.example", Some("a@a-b.example")),
        ("a@1.2.example", Some("a@1.2.example")),
        ("a@xn--bcher-kva.example", Some("a@xn--bcher-kva.example")),
        ("a@XN--BCHER-KVA.example", Some("a@xn--bcher-kva.example")),
        ("a@bücher.example", Some("a@xn--bcher-kva.example")),
        ("a@BÜCHER.example", Some("a@xn--bcher-kva.example")),
        ("a@bu\u{308}cher.example", Some("a@xn--bcher-kva.example")),
        ("a@ｓｈｏｐ.example", Some("a@shop.example")),
        ("a@shop。example", Some("a@shop.example")),
        ("a@shop．example", Some("a@shop.example")),
        ("a@shop｡example", Some("a@shop.example")),
        ("a@\u{212A}elvin.example", Some("a@kelvin.example")),
        ("a@straße.example", Some("a@xn--strae-oqa.example")),
        ("a@例え.テスト", Some("a@xn--r8jz45g.xn--zckzah")),
        ("a@shop.xn--p1ai", Some("a@shop.xn--p1ai")),
        ("a@shop.рф", Some("a@shop.xn--p1ai")),
        ("a@mail.shop.co.uk", Some("a@mail.shop.co.uk")),
        ("-@shop.example", Some("-@shop.example")),
        ("a@stfakeemail.supertokens.com", Some("a@stfakeemail.supertokens.com")),
        // No address at all.
        ("", None),
        (" ", None),
        ("@", None),
        ("a", None),
        ("a@", None),
        ("@shop.example", None),
        ("a@@shop.example", None),
        ("a@b@shop.example", None),
        ("a@shop", None),
        ("a@localhost", None),
        ("a@shop.e", None),
        ("a@shop.1", None),
        ("a@shop.e1", None),
        ("a@192.0.2.1", None),
        ("a@[192.0.2.1]", None),
        ("a@[IPv6:2001:db8::1]", None),
        // The local part.
        (".a@shop.example", None),
        ("a.@shop.example", None),
        ("a..b@shop.example", None),
        ("a b@shop.example", None),
        ("a\tb@shop.example", None),
        ("a\nb@shop.example", None),
        ("a\r\nRCPT TO:<x@y.example>@shop.example", None),
        ("a\0@shop.example", None),
        ("\"a\"@shop.example", None),
        ("\"a b\"@shop.example", None),
        ("\"e@evil.example\"@shop.example", None),
        ("a(comment)@shop.example", None),
        ("(comment)a@shop.example", None),
        ("a@(comment)shop.example", None),
        ("a\\b@shop.example", None),
        ("a,b@shop.example", None),
        ("a;b@shop.example", None),
        ("a:b@shop.example", None),
        ("a<b@shop.example", None),
        ("a>b@shop.example", None),
        ("a[b@shop.example", None),
        ("a]b@shop.example", None),
        ("<a@shop.example>", None),
        ("Alice <a@shop.example>", None),
        ("mailto:a@shop.example", None),
        ("a@shop.example,b@shop.example", None),
        ("a@shop.example;b@shop.example", None),
        ("a@shop.example b@shop.example", None),
        ("a@shop.example\nb@shop.example", None),
        ("a@shop.example> ORCPT=rfc822;b@shop.example", None),
        ("al\u{131}ce@shop.example", None),
        ("\u{130}a@shop.example", None),
        ("\u{212A}@shop.example", None),
        ("ａ@shop.example", None),
        ("é@shop.example", None),
        ("e\u{301}@shop.example", None),
        ("a\u{200B}@shop.example", None),
        ("a\u{AD}b@shop.example", None),
        ("\u{FEFF}a@shop.example", None),
        ("a＠shop.example", None),
        ("\u{A0}a@shop.example", None),
        ("a@shop.example\u{A0}", None),
        ("a@shop.example\u{2028}", None),
        // The domain.
        ("a@.shop.example", None),
        ("a@shop.example.", None),
        ("a@shop.example。", None),
        ("a@shop..example", None),
        ("a@-shop.example", None),
        ("a@shop-.example", None),
        ("a@sh--op.example", None),
        ("a@sh_op.example", None),
        ("a@sh op.example", None),
        ("a@sh*op.example", None),
        ("a@shop.example/x", None),
        ("a@shop.example:25", None),
        ("a@shop.example#x", None),
        ("a@shop%2eexample", None),
        ("a@shop.exam ple", None),
        ("a@sh\u{200B}op.example", None),
        ("a@sh\u{AD}op.example", None),
        ("a@sh\u{2060}op.example", None),
        ("a@sh\u{200D}op.example", None),
        ("a@sh\u{FE0F}op.example", None),
        ("a@sh\u{E0100}op.example", None),
        ("a@sh\u{202E}op.example", None),
        ("a@\u{3164}.example", None),
        ("a@xn--shop-.example", None),
        ("a@xn--shop.example", Some("a@xn--shop.example")),
        ("a@xn--.example", None),
        ("a@xn--a.example", None),
        ("a@xn--bcher-kva-.example", None),
        ("a@xn--BCHER-kvaä.example", None),
        ("a@xn--ls8h\u{200D}.example", None),
        ("a@\u{338}a.example", None),
        ("a@≠.example", Some("a@xn--1ch.example")),
        ("a@a\u{5D0}.example", None),
    ];

    #[test]
    fn sec_o30_two_hundred_addresses() {
        let mut table: Vec<(String, Option<String>)> =
            TABLE.iter().map(|(text, want)| ((*text).to_owned(), want.map(str::to_owned))).collect();
        // Every ASCII character inside the local part and inside the domain.
        for byte in 0..128_u8 {
            let c = char::from(byte);
            let good = c != '@' && (c == '.' || atext(byte));
            let want = good.then(|| format!("a{}b@shop.example", c.to_ascii_lowercase()));
            table.push((format!("a{c}b@shop.example"), want));
            let good = c.is_ascii_alphanumeric() || c == '-' || c == '.';
            let want = good.then(|| format!("a@sh{}op.example", c.to_ascii_lowercase()));
            table.push((format!("a@sh{c}op.example"), want));
        }
        // Lengths at their edges.
        let long = |n: usize| "x".repeat(n);
        for (local, label, fits) in [(64, 10, true), (65, 10, false), (1, 63, true), (1, 64, false)] {
            let text = format!("{}@{}.example", long(local), long(label));
            table.push((text.clone(), fits.then_some(text)));
        }
        let domain = |n: usize| format!("{}.{}.{}.{}.example", long(60), long(60), long(60), long(n));
        for (n, fits) in [(10, true), (20, false)] {
            let text = format!("{}@{}", long(48), domain(n));
            table.push((text.clone(), fits.then_some(text)));
        }
        table.push((format!("{}a@shop.example", " ".repeat(100_000)), None));

        assert!(table.len() >= 200, "{}", table.len());
        for (text, want) in table {
            assert_eq!(email(&text), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn sec_o29_one_form(text in "[ a-zA-Z0-9.+'ﬁßıİKéＡ-]{1,12}@[a-zA-Z0-9.üßÜıＡ。\u{AD}\u{200D}א-]{1,12}\\.[a-zA-Zрф]{2,4} ?") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(Email::parse(email.as_str()).unwrap(), email.clone());
                prop_assert!(email.as_str().is_ascii());
                prop_assert_eq!(Contact::parse(email.as_str()).unwrap(), Contact::Email(email));
            }
        }

        #[test]
        fn sec_o29_any_text(text in "\\PC*") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(Email::parse(email.as_str()).unwrap(), email);
            }
        }

        #[test]
        fn sec_o29_spellings_meet(local in "[a-z0-9]{1,8}", label in "[a-z]{1,8}") {
            let plain = Email::parse(&format!("{local}@{label}.example")).unwrap();
            let wide: String = label.chars().map(|c| char::from_u32(u32::from(c) + 0xFEE0).unwrap()).collect();
            for other in [
                format!(" {}@{}.EXAMPLE\n", local.to_uppercase(), label.to_uppercase()),
                format!("{local}@{wide}。example"),
            ] {
                prop_assert_eq!(Email::parse(&other).unwrap(), plain.clone());
            }
        }
    }

    #[test]
    fn masks_tell_little_and_are_no_contacts() {
        for (text, mask) in [
            ("alice@shop.example", "a***@s***.example"),
            ("al@mail.shop.co.uk", "a***@m***.uk"),
            ("a@b.example", "***@***.example"),
            ("+36301111142", "+***42"),
        ] {
            let contact = Contact::parse(text).unwrap();
            assert_eq!(contact.masked(), mask);
            assert!(Contact::parse(mask).is_err(), "{mask}");
        }
    }

    #[test]
    fn sec_o31_numbers_are_e164() {
        for good in ["+1234567", "+123456789012345", "+36301111111"] {
            assert_eq!(Phone::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "+",
            "1234567",
            "+0234567",
            "+123456",
            "+1234567890123456",
            "0036301111111",
            "+36 30 111 1111",
            "+36(0)301111111",
            "+36301111111;ext=1",
            "tel:+36301111111",
            "+3630111111a",
            "+３６３０１１１１１１１",
            "++36301111111",
            "+36301111111\n",
        ] {
            assert!(Phone::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn made_up_addresses_are_known() {
        for (text, fake) in [
            ("u1@stfakeemail.supertokens.com", true),
            ("u1@x.fakeemail.com", true),
            ("u1@fakeemail.com", false),
            ("u1@notstfakeemail.supertokens.com", false),
            ("u1@stfakeemail.supertokens.com.evil.example", false),
        ] {
            assert_eq!(is_fake(&Email::parse(text).unwrap()), fake, "{text}");
        }
    }

    #[test]
    fn sec_g02_debug_shows_no_contact() {
        let contact = Contact::parse("alice@shop.example").unwrap();
        assert_eq!(format!("{contact:?}"), "Contact([redacted])");
        assert_eq!(serde_json::to_string(&contact).unwrap(), "\"alice@shop.example\"");
    }
}
