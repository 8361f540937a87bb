//! The app that has its users already, before and after: how many lines lie between, and both as programs.

#![allow(
    clippy::assertions_on_result_states,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails may panic"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// As many as the README promises.
const MOST: usize = 15;

fn source(name: &str) -> Vec<String> {
    let path = format!("{}/examples/existing_app/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    // The heading says of each file what it is.
    text.lines().filter(|line| !line.starts_with("//!")).map(str::to_owned).collect()
}

/// How many lines of `new` aren't in `old`, and how many of `old` are gone: by the longest common subsequence.
fn changed(old: &[String], new: &[String]) -> (usize, usize) {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate() {
        for (j, b) in new.iter().enumerate() {
            common[i + 1][j + 1] =
                if a == b { common[i][j] + 1 } else { common[i][j + 1].max(common[i + 1][j]) };
        }
    }
    let kept = common[old.len()][new.len()];
    (new.len() - kept, old.len() - kept)
}

#[test]
fn it_takes_at_most_fifteen_lines() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(changed(&lines("a\nb\nc"), &lines("a\nx\ny\nc")), (2, 1));
    let (new, gone) = changed(&source("before"), &source("main"));
    assert!(new <= MOST && gone <= new, "{new} lines are new or changed, {gone} are gone");
}

/// One of the two, running in a folder of its own.
struct Shop {
    child: Child,
    address: String,
    says: BufReader<ChildStderr>,
}

impl Shop {
    fn start(example: &str, folder: &Path) -> Self {
        let here = std::env::current_exe().unwrap();
        let binary = here.parent().unwrap().parent().unwrap().join("examples").join(example);
        assert!(binary.exists(), "first: cargo build --features full --examples");
        let mut child = Command::new(binary)
            .current_dir(folder)
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("open http://").unwrap().strip_suffix("/login").unwrap();
        let (address, says) = (address.to_owned(), BufReader::new(child.stderr.take().unwrap()));
        Self { child, address, says }
    }

    /// The code that was printed next.
    fn code(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "the shop ended");
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            let code =
                words.into_iter().find(|word| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit()));
            if let Some(code) = code {
                return code.to_owned();
            }
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser, as far as it keeps cookies and sends forms.
#[derive(Clone)]
struct Browser {
    address: String,
    jar: BTreeMap<String, String>,
}

struct Answer {
    status: u16,
    location: Option<String>,
    text: String,
}

impl Browser {
    fn at(shop: &Shop) -> Self {
        Self { address: shop.address.clone(), jar: BTreeMap::new() }
    }

    fn send(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let address = &self.address;
        let cookies: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let script = match kind {
            "application/json" => "rid: anti-csrf\r\nst-auth-mode: cookie\r\nsec-fetch-mode: cors\r\n",
            _ => "sec-fetch-mode: navigate\r\n",
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\norigin: http://{address}\r\n\
             sec-fetch-site: same-origin\r\ncookie: {}\r\n{script}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            cookies.join("; "),
            body.len()
        );
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let mut location = None;
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(": ").unwrap();
            match name {
                "location" => location = Some(value.to_owned()),
                "set-cookie" => {
                    let (cookie, _) = value.split_once(';').unwrap();
                    let (name, value) = cookie.split_once('=').unwrap();
                    // A page's path reaches none of the refresh token's routes.
                    if name != "sRefreshToken" {
                        self.jar.insert(name.to_owned(), value.to_owned());
                    }
                }
                _ => {}
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, location, text: text.to_owned() }
    }

    fn page(&mut self, path: &str) -> Answer {
        self.send("GET", path, "text/html", "")
    }

    fn form(&mut self, path: &str, body: &str) -> Answer {
        self.send("POST", path, "application/x-www-form-urlencoded", body)
    }

    fn script(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, "application/json", &body.to_string());
        serde_json::from_str(&answer.text).unwrap_or_else(|_| panic!("{} {}", answer.status, answer.text))
    }

    /// What `code.html` does, after a wrong code first.
    fn pass_code(&mut self, shop: &mut Shop) {
        let info = self.script("PUT", "/auth/mfa/info", &json!({}));
        let email = &info["emails"]["otp-email"][0];
        assert!(email.as_str().unwrap().contains('*'), "{info}");
        let asked = json!({ "email": email, "shouldTryLinkingWithSessionUser": true });
        let flow = self.script("POST", "/auth/signinup/code", &asked);
        let code = shop.code();
        let wrong = code.chars().rev().collect::<String>();
        let wrong = if wrong == code { "012345" } else { &wrong };
        let mut told = Vec::new();
        for typed in [wrong, &code] {
            let sent = json!({
                "deviceId": flow["deviceId"],
                "preAuthSessionId": flow["preAuthSessionId"],
                "userInputCode": typed,
                "shouldTryLinkingWithSessionUser": true,
            });
            told.push(self.script("POST", "/auth/signinup/code/consume", &sent)["status"].clone());
        }
        assert_eq!(told, ["INCORRECT_USER_INPUT_CODE_ERROR", "OK"]);
    }
}

const RIGHT: &str = "name=alice&password=correct+horse";
const GREETING: &str = "You are signed in. We write to alice@shop.example.";

fn goes_to_sign_in(answer: &Answer) -> bool {
    answer.status == 303 && answer.location.as_deref() == Some("/login")
}

fn goes_to_code(answer: &Answer) -> bool {
    answer.status == 303 && answer.location.as_deref() == Some("/code?redirectToPath=%2F")
}

/// Every table with how many of its rows hold a password's hash, and who the customers are.
async fn stored(folder: &Path) -> (BTreeMap<String, i64>, Vec<(i64, String, String, String)>) {
    let options = SqliteConnectOptions::new().filename(folder.join("shop.db")).read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut found = BTreeMap::new();
    for (table,) in sqlx::query_as::<_, (String,)>(tables).fetch_all(&mut db).await.unwrap() {
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        let columns: Vec<(String,)> =
            sqlx::query_as(AssertSqlSafe(columns)).fetch_all(&mut db).await.unwrap();
        let holds = |(column,): &(String,)| format!("instr(CAST(\"{column}\" AS TEXT), '$argon2') > 0");
        let holds = columns.iter().map(holds).collect::<Vec<_>>().join(" OR ");
        let count = format!("SELECT COUNT(*) FROM \"{table}\" WHERE {holds}");
        found.insert(table, sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut db).await.unwrap());
    }
    let customers = "SELECT id, name, email, password FROM customers";
    (found, sqlx::query_as(customers).fetch_all(&mut db).await.unwrap())
}

#[test]
fn before_a_password_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::start("existing_app_before", folder.path());
    let mut alice = Browser::at(&shop);
    assert!(goes_to_sign_in(&alice.page("/")));
    assert_eq!(alice.form("/login", "name=alice&password=wrong").status, 401);
    assert_eq!(alice.form("/login", RIGHT).status, 303);
    assert!(alice.page("/").text.contains(GREETING));
    alice.form("/logout", "");
    assert!(goes_to_sign_in(&alice.page("/")));
}

#[test]
fn after_a_code_is_asked_and_the_customers_stay_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    // The table is there already, with a customer in it.
    drop(Shop::start("existing_app_before", folder.path()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_, customers) = runtime.block_on(stored(folder.path()));
    assert_eq!(customers.len(), 1);
    let mut shop = Shop::start("existing_app", folder.path());
    let mut alice = Browser::at(&shop);
    assert!(goes_to_sign_in(&alice.page("/")));
    assert_eq!(alice.form("/login", "name=alice&password=wrong").status, 401);
    let half = alice.form("/login", RIGHT);
    assert_eq!((half.status, half.location.as_deref()), (303, Some("/")));
    // A password alone is not enough: a person is asked for the code, a script told so.
    assert!(goes_to_code(&alice.page("/")));
    assert_eq!(alice.send("GET", "/", "application/json", "").status, 403);
    assert!(alice.page("/code").text.contains("/signinup/code/consume"));
    alice.pass_code(&mut shop);
    assert!(alice.page("/").text.contains(GREETING));
    // Each of the two sessions alone is worth nothing.
    for cookie in ["sAccessToken", "id"] {
        let mut without = alice.clone();
        assert!(without.jar.remove(cookie).is_some(), "{:?}", without.jar.keys());
        assert!(goes_to_sign_in(&without.page("/")), "{cookie}");
    }
    let mut kept = alice.clone();
    alice.form("/logout", "");
    assert!(goes_to_sign_in(&alice.page("/")));
    assert_eq!(kept.script("PUT", "/auth/mfa/info", &json!({}))["message"], "unauthorised");
    // Once more, with the password first.
    alice.form("/login", RIGHT);
    assert!(goes_to_code(&alice.page("/")));
    // A stranger can't sign up past the app.
    let fields = json!({ "formFields": [
        { "id": "email", "value": "mallory@shop.example" }, { "id": "password", "value": "correct horse 1" },
    ] });
    assert_eq!(Browser::at(&shop).script("POST", "/auth/signup", &fields)["message"], "unauthorised");
    // And a start later all is there: the customer, her account, and the keys that sign.
    drop(shop);
    let shop = Shop::start("existing_app", folder.path());
    alice.address.clone_from(&shop.address);
    alice.form("/login", RIGHT);
    assert!(goes_to_code(&alice.page("/")));
    assert_eq!(alice.script("PUT", "/auth/mfa/info", &json!({}))["factors"]["next"], json!(["otp-email"]));
    // What a password is known by stands where it was, and nowhere else.
    let (hashes, now) = runtime.block_on(stored(folder.path()));
    assert_eq!(now, customers);
    let holding: Vec<_> = hashes.iter().filter(|(_, count)| **count > 0).collect();
    assert!(hashes.len() > 1, "{hashes:?}");
    assert_eq!(holding, [(&"customers".to_owned(), &1)]);
}
