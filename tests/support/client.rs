//! A client for tests that talk to a process: HTTP over TCP, tokens in headers.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "correct horse 1";

/// A client that carries its tokens in headers.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) access: Option<String>,
    pub(crate) refresh: Option<String>,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self { address, access: None, refresh: None }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    pub(crate) fn post(&mut self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body))
    }

    pub(crate) fn put(&mut self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body))
    }

    pub(crate) fn refresh(&mut self) -> Answer {
        self.call("POST", "/auth/session/refresh", None)
    }

    pub(crate) fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_call(method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// A call that the server may not live to answer.
    pub(crate) fn try_call(&mut self, method: &str, path: &str, body: Option<Value>) -> Option<Answer> {
        self.call_on(TcpStream::connect(self.address).ok()?, method, path, body)
    }

    /// The same on a connection that is open already.
    pub(crate) fn call_on(
        &mut self,
        mut stream: TcpStream,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Option<Answer> {
        let token = if path.ends_with("/refresh") { &self.refresh } else { &self.access };
        let token =
            token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nrid: anti-csrf\r\n\
             st-auth-mode: header\r\nfdi-version: 4.1\r\nContent-Type: application/json\r\n{token}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let answer = Answer::read(stream)?;
        for (name, slot) in [("st-access-token", &mut self.access), ("st-refresh-token", &mut self.refresh)] {
            if let Some(value) = answer.headers.get(name) {
                *slot = Some(value.clone()).filter(|value| !value.is_empty());
            }
        }
        Some(answer)
    }

    pub(crate) fn sign_up(&mut self, email: &str) -> Value {
        let body = self.post("/auth/signup", credentials(email)).ok();
        assert_eq!(body["status"], "OK");
        body
    }

    /// Asks for a code to an address or a number; `linking` as a second factor.
    pub(crate) fn ask_code(&mut self, contact: &str, linking: bool) -> Answer {
        let kind = if contact.starts_with('+') { "phoneNumber" } else { "email" };
        let body = json!({ (kind): contact, "shouldTryLinkingWithSessionUser": linking });
        self.post("/auth/signinup/code", body)
    }

    /// Enters a code for a flow.
    pub(crate) fn enter(&mut self, flow: &Value, code: &str, linking: bool) -> Answer {
        self.post("/auth/signinup/code/consume", guess(flow, code, linking))
    }
}

/// The body that enters a code.
pub(crate) fn guess(flow: &Value, code: &str, linking: bool) -> Value {
    json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": code,
        "shouldTryLinkingWithSessionUser": linking,
    })
}

pub(crate) fn credentials(email: &str) -> Value {
    json!({ "formFields": [{ "id": "email", "value": email }, { "id": "password", "value": PASSWORD }] })
}

/// The `n`th code that certainly isn't this one.
pub(crate) fn wrong(code: &str, n: u32) -> String {
    let right: u32 = code.parse().unwrap();
    format!("{:06}", (right + 1 + n) % 1_000_000)
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Answer {
    /// Reads an answer; `None` if the connection ends before it does.
    pub(crate) fn read(stream: TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            Some(line.trim_end().to_owned())
        };
        let status = line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = line()?.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Self { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}
