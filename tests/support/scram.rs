//! Clients of SCRAM-SHA-256 that are not ours.

use std::path::Path;
use std::process::Command;

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
