//! PAM: passwords and accounts as the host's administrator has them checked. Only in a build with the
//! feature `pam`, which needs libpam (Linux-PAM).
//!
//! The library loads modules that do whatever they like, and may wait. It is called in the monitor of
//! one session, never in a listener. No PAM session is opened, and no credentials are set: these are
//! for logins that get a shell.

/// Asks PAM's service whether the password is the user's and the account may be used now. Without a
/// password only the latter: the user has proven in another way who it is. An error says that it can't
/// be told now. Why somebody is refused, the modules say in the log.
#[cfg(not(feature = "pam"))]
pub fn ask(_service: &str, _user: &str, _password: Option<&[u8]>) -> std::io::Result<bool> {
    Err(std::io::Error::other("PAM is not in this build"))
}

#[cfg(feature = "pam")]
pub use with_libpam::ask;

#[cfg(feature = "pam")]
#[allow(unsafe_code, reason = "a C library, of which only this file knows")]
mod with_libpam {
    use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
    use std::io;
    use std::ptr;

    use nix::libc;

    /// What is opaque of libpam's.
    #[repr(C)]
    struct Handle {
        _private: [u8; 0],
    }

    /// `struct pam_message`
    #[repr(C)]
    struct Message {
        style: c_int,
        text: *const c_char,
    }

    /// `struct pam_response`
    #[repr(C)]
    struct Response {
        text: *mut c_char,
        code: c_int,
    }

    /// `struct pam_conv`
    #[repr(C)]
    struct Conversation {
        converse:
            extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
        data: *mut c_void,
    }

    #[link(name = "pam")]
    unsafe extern "C" {
        fn pam_start(
            service: *const c_char,
            user: *const c_char,
            conversation: *const Conversation,
            handle: *mut *mut Handle,
        ) -> c_int;
        fn pam_end(handle: *mut Handle, status: c_int) -> c_int;
        fn pam_authenticate(handle: *mut Handle, flags: c_int) -> c_int;
        fn pam_acct_mgmt(handle: *mut Handle, flags: c_int) -> c_int;
        fn pam_set_item(handle: *mut Handle, item: c_int, value: *const c_void) -> c_int;
        fn pam_get_item(handle: *const Handle, item: c_int, value: *mut *const c_void) -> c_int;
        fn pam_strerror(handle: *mut Handle, code: c_int) -> *const c_char;
    }

    // Of <security/_pam_types.h>.
    const SUCCESS: c_int = 0;
    const BUF_ERR: c_int = 5;
    const CONV_ERR: c_int = 19;
    /// The codes that say that nothing could be asked: OPEN_ERR, SYMBOL_ERR, SERVICE_ERR, BUF_ERR,
    /// AUTHINFO_UNAVAIL, ABORT and MODULE_UNKNOWN. All others are a "no", also SYSTEM_ERR (pam_exec's
    /// word for a command that has failed) and CONV_ERR (a question after the right password): what
    /// depends on the password has to be counted as a failure.
    const UNKNOWN: [c_int; 7] = [1, 2, 3, 5, 9, 26, 28];
    const USER: c_int = 2;
    const FAIL_DELAY: c_int = 10;
    const PROMPT_ECHO_OFF: c_int = 1;
    const ERROR_MSG: c_int = 3;
    const TEXT_INFO: c_int = 4;
    const MAX_NUM_MSG: usize = 32;
    const SILENT: c_int = 0x8000;
    const DISALLOW_NULL_AUTHTOK: c_int = 1;

    /// See the other one.
    pub fn ask(service: &str, user: &str, password: Option<&[u8]>) -> io::Result<bool> {
        let text = |bytes: &[u8]| CString::new(bytes).ok();
        let (Some(service), Some(user)) = (text(service.as_bytes()), text(user.as_bytes())) else {
            return Ok(false);
        };
        let Some(password) = password.map(text) else {
            return Transaction::run(&service, &user, None);
        };
        // No password has a NUL.
        password.map_or(Ok(false), |password| Transaction::run(&service, &user, Some(&password)))
    }

    /// Between pam_start(3) and pam_end(3).
    struct Transaction {
        handle: *mut Handle,
        status: c_int,
    }

    impl Transaction {
        fn run(service: &CStr, user: &CStr, password: Option<&CStr>) -> io::Result<bool> {
            let data = password.map_or(ptr::null(), CStr::as_ptr);
            let conversation = Conversation { converse, data: data.cast_mut().cast() };
            let mut handle = ptr::null_mut();
            // SAFETY: all pointers are valid for the call; the library copies the texts and the
            // conversation, whose data, the password, outlives the transaction.
            let status = unsafe {
                pam_start(service.as_ptr(), user.as_ptr(), &raw const conversation, &raw mut handle)
            };
            if status != SUCCESS || handle.is_null() {
                return Err(io::Error::other(format!("PAM can't be started: error {status}")));
            }
            let mut transaction = Self { handle, status };
            // Whoever fails is made to wait by the one who asks here, and not by the modules.
            // SAFETY: the handle is live, and the item is a function of the type that it wants.
            unsafe { pam_set_item(handle, FAIL_DELAY, no_delay as *const c_void) };
            let flags = SILENT | DISALLOW_NULL_AUTHTOK;
            // SAFETY: the handle is live.
            let authenticate = || unsafe { pam_authenticate(handle, flags) };
            // SAFETY: the handle is live.
            let account = || unsafe { pam_acct_mgmt(handle, flags) };
            Ok((password.is_none() || transaction.says(authenticate())?)
                && transaction.says(account())?
                && transaction.is_for(user)?)
        }

        /// What a code means.
        fn says(&mut self, code: c_int) -> io::Result<bool> {
            self.status = code;
            if !UNKNOWN.contains(&code) {
                return Ok(code == SUCCESS);
            }
            // SAFETY: the handle is live; the text is the library's, and constant.
            let text = unsafe { pam_strerror(self.handle, code) };
            let what = if text.is_null() {
                format!("error {code}")
            } else {
                // SAFETY: a text of the library's ends in NUL.
                unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
            };
            Err(io::Error::other(format!("PAM: {what}")))
        }

        /// Whether the user is still the one that was asked about: modules may put in another one.
        fn is_for(&self, user: &CStr) -> io::Result<bool> {
            let mut item = ptr::null();
            // SAFETY: the handle is live, and the result is written to a pointer of ours.
            let code = unsafe { pam_get_item(self.handle, USER, &raw mut item) };
            if code == SUCCESS && !item.is_null() {
                // SAFETY: this item is a text of the handle's, which lives as long.
                let found = unsafe { CStr::from_ptr(item.cast()) };
                if found == user {
                    return Ok(true);
                }
            }
            Err(io::Error::other("PAM: the modules have put in another user, who is not served"))
        }
    }

    impl Drop for Transaction {
        fn drop(&mut self) {
            // SAFETY: the handle is live, and not used after this.
            unsafe { pam_end(self.handle, self.status) };
        }
    }

    /// `void (*delay_fn)(int, unsigned, void *)`, which is called instead of waiting.
    extern "C" fn no_delay(_status: c_int, _microseconds: c_uint, _data: *mut c_void) {}

    /// `pam_conv(3)`: the password is the answer to what is not echoed; texts are not shown, and other
    /// questions have no answer. What is handed over is the library's to free(3).
    extern "C" fn converse(
        count: c_int,
        messages: *mut *const Message,
        responses: *mut *mut Response,
        password: *mut c_void,
    ) -> c_int {
        let count = usize::try_from(count).unwrap_or_default();
        if !(1..=MAX_NUM_MSG).contains(&count) || messages.is_null() || responses.is_null() {
            return CONV_ERR;
        }
        // SAFETY: Linux-PAM passes an array of `count` pointers to messages.
        let messages = unsafe { std::slice::from_raw_parts(messages, count) };
        // SAFETY: as the library has passed them; none is null.
        let styles = messages.iter().map(|message| unsafe { (**message).style });
        let has_answer = |style| match style {
            PROMPT_ECHO_OFF => !password.is_null(),
            style => matches!(style, ERROR_MSG | TEXT_INFO),
        };
        if !styles.clone().all(has_answer) {
            return CONV_ERR;
        }
        // SAFETY: calloc(3) has no conditions; all zeroes is a response without a text.
        let answers: *mut Response = unsafe { libc::calloc(count, size_of::<Response>()) }.cast();
        if answers.is_null() {
            return BUF_ERR;
        }
        for (at, style) in styles.enumerate() {
            if style == PROMPT_ECHO_OFF {
                // SAFETY: `password` is the text that pam_start was given, and `at` is in the array. A
                // copy that could not be made is no answer.
                unsafe { (*answers.add(at)).text = libc::strdup(password.cast()) };
            }
        }
        // SAFETY: it is a pointer of the library's to be written to.
        unsafe { *responses = answers };
        SUCCESS
    }
}
