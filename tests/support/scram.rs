//! Clients of SCRAM-SHA-256 that are not ours, and one that does what it is told.

use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;

use base64ct::{Base64, Encoding};
use ring::{hmac, pbkdf2};
use sha2::{Digest, Sha256};

use super::run::run;

/// Logs in by Python's standard library; the code of the last reply. It takes no server that can't
/// sign. Under TLS, of the version that Python calls so, the login is bound to the certificate.
pub fn python(port: u16, user: &str, password: &str, tls: Option<(&Path, &str)>) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", CLIENT, &port.to_string(), user, password]);
    if let Some((authority, version)) = tls {
        command.arg(authority).arg(version);
    }
    run(&mut command, b"").expect(0).text().trim_end().to_owned()
}

const CLIENT: &str = r"
import base64, hashlib, hmac, smtplib, ssl, sys
port, user, password, *tls = sys.argv[1:]
s = smtplib.SMTP('127.0.0.1', int(port), timeout=30)
mechanism, header, binding = 'SCRAM-SHA-256', 'n,,', b''
if tls:
    c = ssl.create_default_context(cafile=tls[0])
    c.check_hostname = False
    c.minimum_version = c.maximum_version = ssl.TLSVersion[tls[1]]
    s.starttls(context=c)
    mechanism, header = 'SCRAM-SHA-256-PLUS', 'p=tls-server-end-point,,'
    binding = hashlib.sha256(s.sock.getpeercert(binary_form=True)).digest()
s.ehlo('client.example')
b64 = lambda b: base64.b64encode(b).decode()
mac = lambda k, m: hmac.new(k, m, hashlib.sha256).digest()
bare = 'n=' + user + ',r=abcdefgh'
code, text = s.docmd('AUTH', mechanism + ' ' + b64((header + bare).encode()))
assert code == 334, text
first = base64.b64decode(text).decode()
fields = dict(field.split('=', 1) for field in first.split(','))
salt = base64.b64decode(fields['s'])
salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, int(fields['i']))
last = 'c=' + b64(header.encode() + binding) + ',r=' + fields['r']
message = ','.join([bare, first, last]).encode()
key = mac(salted, b'Client Key')
signature = mac(hashlib.sha256(key).digest(), message)
proof = bytes(a ^ b for a, b in zip(key, signature))
code, text = s.docmd(b64((last + ',p=' + b64(proof)).encode()))
if code == 334:
    assert base64.b64decode(text).decode() == 'v=' + b64(mac(mac(salted, b'Server Key'), message))
    code, text = s.docmd('')
print(code)
";

/// A client's side of one exchange, of the user `new`.
pub struct Client<'a> {
    password: &'a str,
    header: String,
    binding: Vec<u8>,
    wanted: String,
}

const BARE: &str = "n=new,r=abcdefgh";

fn encoded(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

impl<'a> Client<'a> {
    /// With this word for the binding, and these bytes.
    pub fn new(password: &'a str, flag: &str, data: &[u8]) -> Self {
        let header = format!("{flag},,");
        let binding = [header.as_bytes(), data].concat();
        Self { password, header, binding, wanted: String::new() }
    }

    /// The first message, in base64, as are all.
    pub fn first(&self) -> String {
        encoded(format!("{}{BARE}", self.header).as_bytes())
    }

    /// What is said to the challenge.
    pub fn last(&mut self, challenge: &str) -> String {
        let challenge = String::from_utf8(Base64::decode_vec(challenge).unwrap()).unwrap();
        let part =
            |word: &str| challenge.split(',').find_map(|part| part.strip_prefix(word)).unwrap();
        let salt = Base64::decode_vec(part("s=")).unwrap();
        let iterations = NonZeroU32::new(part("i=").parse().unwrap()).unwrap();
        let mut salted = [0; 32];
        let function = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(function, iterations, &salt, self.password.as_bytes(), &mut salted);
        let last = format!("c={},r={}", encoded(&self.binding), part("r="));
        let message = format!("{BARE},{challenge},{last}");
        let key = mac(&salted, b"Client Key");
        let signature = mac(&Sha256::digest(&key), message.as_bytes());
        let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let wanted = mac(&mac(&salted, b"Server Key"), message.as_bytes());
        self.wanted = encoded(format!("v={}", encoded(&wanted)).as_bytes());
        encoded(format!("{last},p={}", encoded(&proof)).as_bytes())
    }

    /// That the server knows the keys, too.
    #[track_caller]
    pub fn believes(&self, said: &str) {
        assert_eq!(said, self.wanted);
    }
}
