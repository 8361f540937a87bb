//! Who has a contact: whatever is done to users, the index says what they say themselves.

use proptest::{prelude::*, test_runner::TestRunner};
use tower_mfa::{
    account::User,
    ident::{Email, TenantId, UserId},
};

use crate::support::TestApp;

const CONTACTS: usize = 3;

/// Something that an app does to its users, each chosen among those there are.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, usize),
    Add(usize, usize, usize),
    RemoveLogin(usize, usize),
    Join(usize, usize),
    Leave(usize, usize),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (tenant, contact, any) = (0..2usize, 0..CONTACTS, 0..4usize);
    prop_oneof![
        3 => (tenant.clone(), contact.clone()).prop_map(|(t, c)| Step::Create(t, c)),
        3 => (any.clone(), tenant.clone(), contact).prop_map(|(u, t, c)| Step::Add(u, t, c)),
        1 => (any.clone(), any.clone()).prop_map(|(u, l)| Step::RemoveLogin(u, l)),
        2 => (any.clone(), tenant.clone()).prop_map(|(u, t)| Step::Join(u, t)),
        1 => (any.clone(), tenant).prop_map(|(u, t)| Step::Leave(u, t)),
        1 => any.prop_map(Step::Delete),
    ]
}

fn email(n: usize) -> Email {
    Email::parse(&format!("user{n}@shop.example")).unwrap()
}

/// Does it, if it can be done. What can't is refused, and changes nothing.
async fn take(app: &TestApp, tenants: &[TenantId], made: &mut Vec<UserId>, step: &Step) {
    let users = app.mfa.users();
    let chosen = |n: usize| made.get(n % made.len().max(1)).cloned();
    match *step {
        Step::Create(tenant, contact) => {
            if let Ok(user) = users.create(&tenants[tenant], &email(contact)).await {
                made.push(user.id);
            }
        }
        Step::Add(user, tenant, contact) => {
            if let Some(id) = chosen(user) {
                let _ = users.add_email(&id, &tenants[tenant], &email(contact)).await;
            }
        }
        Step::RemoveLogin(user, login) => {
            if let Some(id) = chosen(user) {
                let logins = users.load(&id).await.unwrap().unwrap().logins;
                let _ = users.remove_login(&id, &logins[login % logins.len()].id).await;
            }
        }
        Step::Join(user, tenant) => {
            if let Some(id) = chosen(user) {
                let _ = users.add_to_tenants(&id, [tenants[tenant].clone()]).await;
            }
        }
        Step::Leave(user, tenant) => {
            if let Some(id) = chosen(user) {
                users.remove_from_tenant(&id, &tenants[tenant]).await.unwrap();
            }
        }
        Step::Delete(user) => {
            if let Some(id) = chosen(user) {
                users.delete(&id).await.unwrap();
                made.retain(|other| *other != id);
            }
        }
    }
}

#[test]
fn the_index_says_what_the_users_say() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let run = |steps: Vec<Step>| {
        runtime.block_on(async {
            let app = TestApp::new().await;
            let tenants = [TenantId::PUBLIC, TenantId::parse("north").unwrap()];
            app.mfa.tenants().create(&tenants[1], None).await.unwrap();
            let mut made = Vec::new();
            for step in &steps {
                take(&app, &tenants, &mut made, step).await;
                app.store.check_users().await;
            }
            for tenant in &tenants {
                for contact in (0..CONTACTS).map(email) {
                    let found = app.mfa.users().by_email(tenant, &contact).await.unwrap();
                    let found: Vec<UserId> = found.into_iter().map(|user| user.id).collect();
                    for id in &made {
                        let user: User = app.mfa.users().load(id).await.unwrap().unwrap();
                        let has = user.logins.iter().any(|login| {
                            login.tenants.contains(tenant) && login.email.as_ref() == Some(&contact)
                        });
                        assert_eq!(found.iter().filter(|other| *other == id).count(), usize::from(has));
                    }
                }
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&proptest::collection::vec(step(), 1..14), run).unwrap();
}
