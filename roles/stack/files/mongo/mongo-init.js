// Brings the database to the state the services expect, and says CHANGED or OK. Run by mongosh inside the container:
//   mongosh --quiet --norc --nodb /etc/berth/mongo-init.js
// Passwords are read from files, so that no command line shows them. Each step looks before it acts.

const fs = require("fs");

const ADDRESS = "mongodb://127.0.0.1:27017/?directConnection=true";
const PRIMARY_TIMEOUT_MS = 60000;

// From this version on MongoDB asks whether it is meant, since no older one starts on the data then.
const CONFIRMED_FROM = 7;

// User -> its database, and the file of its password.
const users = () => Object.entries(JSON.parse(secret("users.json")));
const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, "utf8").trim();

function signsIn(database, user, password) {
  try {
    return Boolean(new Mongo(ADDRESS).getDB(database).auth(user, password).ok);
  } catch (error) {
    if (error.codeName === "AuthenticationFailed" || error.code === 18) return false;
    throw error;
  }
}

function ensureReplicaSet(admin) {
  if (admin.hello().setName) return false;
  admin.runCommand({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host: "mongo:27017" }] } });
  return true;
}

function waitForPrimary(admin) {
  const end = Date.now() + PRIMARY_TIMEOUT_MS;
  while (!admin.hello().isWritablePrimary) {
    if (Date.now() > end) throw new Error("the replica set has no primary; see the log of berth-mongo-1");
    sleep(200);
  }
}

// Runs when a new version has taken over for good: an upgrade is undone before this, or not at all.
function ensureCompatibility(admin) {
  const [major, minor] = admin.adminCommand({ buildInfo: 1 }).versionArray;
  const own = `${major}.${minor}`;
  const name = "featureCompatibilityVersion";
  const found = admin.adminCommand({ getParameter: 1, [name]: 1 })[name];
  // A change that was cut off has a target still.
  if (found.version === own && !found.targetVersion) return false;
  const confirm = major >= CONFIRMED_FROM ? { confirm: true } : {};
  admin.adminCommand({ setFeatureCompatibilityVersion: own, ...confirm });
  // mongodump --oplog begins with the newest entry, and refuses one of admin.system.version.
  admin.adminCommand({ appendOplogNote: 1, data: { msg: name } });
  return true;
}

// While root's password changes: the next one, and those that an interrupted change may have left.
const changing = () => {
  const file = "root_passwords.json";
  return fs.existsSync(`/run/secrets/${file}`) ? JSON.parse(secret(file)) : { former: [] };
};

// Sign in, and return the password that was right.
function becomeRoot(admin) {
  const { next, former } = changing();
  const found = [next, ...former].find((one) => one !== undefined && signsIn("admin", "root", one));
  const password = found ?? secret("mongo_root_password");
  admin.auth("root", password);
  return password;
}

function ensureUser(server, user, database, password) {
  const own = server.getDB(database);
  const roles = [{ role: "readWrite", db: database }];
  const present = own.getUser(user);
  if (present === null) {
    own.createUser({ user, pwd: password, roles });
    return true;
  }
  const has = present.roles.map((r) => `${r.role}@${r.db}`).join();
  if (has === `readWrite@${database}` && signsIn(database, user, password)) return false;
  own.updateUser(user, { pwd: password, roles });
  return true;
}

const server = new Mongo(ADDRESS);
const admin = server.getDB("admin");
const changes = [];
const password = becomeRoot(admin);
if (ensureReplicaSet(admin)) changes.push("replica set");
waitForPrimary(admin);
if (ensureCompatibility(admin)) changes.push("featureCompatibilityVersion");
for (const [user, [database, file]] of users()) {
  if (ensureUser(server, user, database, secret(file))) changes.push(user);
}
// Last: until this file ends, everything else that is root reads the former one.
const { next } = changing();
if (next !== undefined && next !== password) {
  admin.changeUserPassword("root", next);
  changes.push("root");
}
print(changes.length ? `CHANGED: ${changes.join(", ")}` : "OK");
