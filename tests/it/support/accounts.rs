//! What must hold of users and their login methods in the store, whatever happened to them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tower_mfa::store::Key;

use super::Watched;

impl Watched {
    /// Every login method is one user's alone, and everything that leads to one leads to it: names, claims of primary
    /// users, and who has a contact. Nothing leads anywhere else.
    pub async fn check_users(&self) {
        let dump = self.dump().await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (mut owners, mut names, mut claims, mut holders) =
            (BTreeMap::new(), BTreeSet::new(), BTreeMap::new(), BTreeMap::<Key, BTreeSet<_>>::new());
        for (_, row) in dump.iter().filter(|(key, _)| key.as_str().starts_with("user/")) {
            let user = text(&row.body["id"]);
            for login in row.body["logins"].as_array().unwrap() {
                let id = text(&login["id"]);
                let other = owners.insert(id.clone(), user.clone());
                assert_eq!(other, None, "{id} is of two users");
                for tenant in login["tenants"].as_array().unwrap().iter().map(text) {
                    names.insert((tenant.clone(), id.clone(), user.clone()));
                    for kind in ["email", "phone"] {
                        let Some(contact) = login[kind].as_str() else { continue };
                        let place = |what: &str| Key::new(["t", &tenant, what, kind, contact]);
                        holders.entry(place("holders")).or_default().insert((id.clone(), user.clone()));
                        if row.body["primary"] == true {
                            let other = claims.insert(place("primary"), user.clone());
                            assert!(
                                other.is_none_or(|other| other == user),
                                "{contact} has two primary users"
                            );
                        }
                    }
                }
            }
        }
        let owner = |body: &Value| (text(&body["login"]), text(&body["user"]));
        let under = |what: &'static str| {
            let is_there = move |key: &Key| key.as_str().split('/').nth(2) == Some(what);
            dump.iter().filter(move |(key, _)| key.as_str().starts_with("t/") && is_there(key))
        };
        let of_login = dump.iter().filter(|(key, _)| key.as_str().starts_with("login-of/"));
        assert_eq!(of_login.map(|(_, row)| owner(&row.body)).collect::<BTreeMap<_, _>>(), owners);
        let named = under("login").map(|(key, row)| {
            let (login, user) = owner(&row.body);
            (key.as_str().split('/').nth(1).unwrap().to_owned(), login, user)
        });
        assert_eq!(named.collect::<BTreeSet<_>>(), names);
        let claimed = under("primary").map(|(key, row)| (key.clone(), text(&row.body["user"])));
        assert_eq!(claimed.collect::<BTreeMap<_, _>>(), claims);
        let held = under("holders").map(|(key, row)| {
            (key.clone(), row.body["holders"].as_array().unwrap().iter().map(owner).collect())
        });
        assert_eq!(held.collect::<BTreeMap<_, BTreeSet<_>>>(), holders);
    }
}
