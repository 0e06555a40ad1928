// What a person does in Thunderbird, as the test calls it, and what there is to be seen then. All
// of it runs in the main window. What takes time is waited for, and what does not come is said.

const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const { SessionStoreManager } = ChromeUtils.importESModule(
  "resource:///modules/SessionStoreManager.sys.mjs"
);
const { setTimeout } = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");

const PATIENCE = 25000;
const account = MailServices.accounts.defaultAccount;
const root = account.incomingServer.rootFolder;

async function until(what, condition) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    let seen;
    try {
      const value = await condition();
      if (value) {
        return value;
      }
    } catch (error) {
      seen = error;
    }
    if (Date.now() > end) {
      throw new Error(`waited for ${what}: ${seen ?? ""} ${all()}`);
    }
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

// All that is known of the account, a line each.
function all() {
  return root.descendants
    .flatMap(folder => [path(folder), ...messages(folder).map(show)])
    .join("\n");
}

function path(folder) {
  return folder.parent === root ? folder.name : `${path(folder.parent)}/${folder.name}`;
}

function messages(folder) {
  return [...folder.messages];
}

// A message in one line.
function show(message) {
  const marks = [
    message.isRead && "read",
    message.isFlagged && "flagged",
    message.flags & Ci.nsMsgMessageFlags.Replied && "replied",
    ...message.getStringProperty("keywords").split(" "),
  ];
  return `  ${message.mime2DecodedSubject}: ${marks.filter(Boolean).join(" ")}`;
}

function known(where) {
  return root.descendants.find(it => path(it) === where);
}

function find(where) {
  return until(`the folder ${where}`, () => known(where));
}

function message(where, subject) {
  return until(`${subject} in ${where}`, () =>
    messages(known(where)).find(it => it.mime2DecodedSubject === subject)
  );
}

function pane() {
  return document.getElementById("tabmail").currentAbout3Pane;
}

// Waits until the window is one that a person can use.
function ready() {
  return until("the window", () => {
    const done = gMailInit.delayedStartupFinished && SessionStoreManager._restored;
    return done && pane()?.document.readyState === "complete" && !Services.io.offline;
  });
}

async function trust(authority) {
  const base64 = authority.replace(/-----[^-]*-----|\s/g, "");
  const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
  database.addCertFromBase64(base64, "CT,,");
}

async function remember(user, password) {
  for (const origin of ["imap://localhost", "smtp://localhost"]) {
    const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
    login.init(origin, null, origin, user, password, "", "");
    await Services.logins.addLoginAsync(login);
  }
}

async function open(where) {
  const folder = await find(where);
  pane().displayFolder(folder.URI);
  await until(`the view of ${where}`, () => pane().gFolder === folder && pane().gDBView);
}

// The inbox, before anything is known of the server, which it is then asked for.
function openInbox() {
  pane().displayFolder(root.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox).URI);
}

// Waits until there are these folders and no others.
function folders(names) {
  const seen = () => root.descendants.map(path).sort().join(" ");
  return until(`the folders ${names}`, () => seen() === names);
}

// Waits until a folder's list has these messages and no others, in this order.
async function lists(where, subjects) {
  const seen = () => messages(known(where)).map(it => it.mime2DecodedSubject);
  await until(`the messages ${subjects} in ${where}`, () => `${seen()}` === `${subjects}`);
}

// Waits until a message is marked like this: `read flagged $label1`.
async function marked(where, subject, marks) {
  const wanted = await message(where, subject);
  await until(`${marks} at ${subject}`, () => show(wanted).endsWith(`: ${marks}`));
}

// Clicks on a message of the list that is open, and reads it: this text, these attachments.
async function read(where, subject, text, attached = []) {
  const wanted = await message(where, subject);
  const reader = pane().messageBrowser.contentWindow;
  await until(`the line of ${subject}`, () => {
    const line = pane().gDBView.findIndexOfMsgHdr(wanted, false);
    pane().threadTree.selectedIndex = line;
    return line < pane().gDBView.rowCount;
  });
  await until(`the text of ${subject}`, () => {
    const shown = reader.getMessagePaneBrowser().contentDocument.body.textContent;
    const names = reader.currentAttachments.map(it => it.name);
    return shown.includes(text) && `${names}` === `${attached}`;
  });
  // It is marked when all of it was shown, if nobody has gone on to another one by then.
  await until(`${subject} to be read`, () => wanted.isRead);
}

// Asks the server; the subjects of what it found.
async function search(where, attribute, text) {
  const folder = await find(where);
  const session = Cc["@mozilla.org/messenger/searchSession;1"].createInstance(
    Ci.nsIMsgSearchSession
  );
  session.addScopeTerm(Ci.nsMsgSearchScope.onlineMail, folder);
  const term = session.createTerm();
  const value = term.value;
  term.attrib = value.attrib = Ci.nsMsgSearchAttrib[attribute];
  value.str = text;
  term.value = value;
  term.op = Ci.nsMsgSearchOp.Contains;
  session.appendTerm(term);
  const found = [];
  let status;
  const listener = {
    onNewSearch() {},
    onSearchHit: hit => found.push(hit.mime2DecodedSubject),
    onSearchDone: result => (status = `${result}`),
  };
  session.registerListener(listener, Ci.nsIMsgSearchSession.allNotifications);
  session.search(null);
  await until(`the search for ${text}`, () => status);
  return [status, ...found].join("\n");
}

async function mark(where, subject) {
  const wanted = await message(where, subject);
  wanted.folder.markMessagesRead([wanted], true);
  wanted.folder.markMessagesFlagged([wanted], true);
  wanted.folder.addKeywordsToMessages([wanted], "$label1 later");
}

async function unmark(where, subject) {
  const wanted = await message(where, subject);
  wanted.folder.markMessagesRead([wanted], false);
  wanted.folder.markMessagesFlagged([wanted], false);
  wanted.folder.removeKeywordsFromMessages([wanted], "$label1");
}

async function create(where) {
  root.createSubfolder(where, null);
  await find(where);
}

async function rename(where, name) {
  (await find(where)).rename(name, null);
  await find(name);
}

// Copies a message to another folder, or moves it there.
async function copy(where, subject, target, move) {
  const wanted = await message(where, subject);
  const folder = await find(target);
  await finished(listener =>
    MailServices.copy.copyMessages(wanted.folder, [wanted], folder, move, listener, null, false)
  );
}

async function throwAway(where) {
  const folder = await find(where);
  const trash = await find("Trash");
  await finished(listener => MailServices.copy.copyFolder(folder, trash, true, listener, null));
}

async function emptyTrash() {
  (await find("Trash")).emptyTrash(null);
}

// Moves a message to the trash, or does away with it.
async function remove(where, subject, forGood) {
  const wanted = await message(where, subject);
  await finished(listener =>
    wanted.folder.deleteMessages([wanted], null, forGood, false, listener, false)
  );
  if (forGood) {
    wanted.folder.compact(null, null);
  }
}

async function finished(start) {
  let status;
  start({
    QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"]),
    onStartCopy() {},
    onProgress() {},
    setMessageKey() {},
    getMessageId: () => null,
    onStopCopy: result => (status = result),
  });
  await until("a copy", () => status !== undefined);
  if (status) {
    throw new Error(`a copy failed: ${status}`);
  }
}

// Sends a message, or keeps it as a draft.
async function write(to, subject, text, draft) {
  const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(
    Ci.nsIMsgCompFields
  );
  const identity = account.defaultIdentity;
  fields.from = identity.email;
  fields.to = to;
  fields.subject = subject;
  fields.body = text;
  const mode = draft ? Ci.nsIMsgSend.nsMsgSaveAsDraft : Ci.nsIMsgSend.nsMsgDeliverNow;
  let status;
  const listener = {
    QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
    onStartSending() {},
    onProgress() {},
    onStatus() {},
    onGetDraftFolderURI() {},
    onTransportSecurityError: () => (status = "no TLS"),
    onSendNotPerformed: () => (status = "not performed"),
    onStopSending: (id, result) => (status = result),
  };
  Cc["@mozilla.org/messengercompose/send;1"]
    .createInstance(Ci.nsIMsgSend)
    .createAndSendMessage(
      null, identity, account.key, fields, false, false, mode, null, "text/plain", text, null,
      null, listener, "", "", Ci.nsIMsgCompType.New
    );
  if (!draft) {
    await until("the end of sending", () => status !== undefined);
    if (status) {
      throw new Error(`not sent: ${status}`);
    }
  }
}
