// mongosh with databases in memory, for what a restore has it do: node --require ./mongo_shell.js --eval SCRIPT
// They come from the file STATE and go back there: database -> collection -> type, rows, options. What MongoDB refuses
// is refused here, too. At the change of number CUT the script is cut off.

const fs = require("fs");

const databases = JSON.parse(fs.readFileSync(process.env.STATE));
let changes = 0;

process.on("exit", () => fs.writeFileSync(process.env.STATE, JSON.stringify(databases)));
// The script's own: the password.
fs.readFileSync = () => "secret";

function refuse(text) {
  throw new Error(`MongoServerError: ${text}`);
}

function change(work) {
  if (String(changes++) === process.env.CUT) process.exit(137);
  work();
  return { ok: 1 };
}

class Collection {
  constructor(there, name) {
    Object.assign(this, { there, name });
  }

  rows() {
    return this.there[this.name]?.rows ?? [];
  }

  find() {
    return { toArray: () => structuredClone(this.rows()) };
  }

  countDocuments() {
    return this.rows().length;
  }

  drop() {
    if (this.name === "system.js") refuse("can't drop system collection");
    change(() => delete this.there[this.name]);
  }

  deleteMany(filter) {
    const kept = filter._id?.$nin ?? [];
    if (this.there[this.name]) {
      change(() => (this.there[this.name].rows = this.rows().filter((row) => kept.includes(row._id))));
    }
  }

  replaceOne(filter, row) {
    const others = this.rows().filter((one) => one._id !== filter._id);
    change(() => (this.there[this.name] = { type: "collection", rows: [...others, row] }));
  }
}

class Database {
  constructor(name) {
    this.there = databases[name] ?? {};
  }

  auth() {}

  getSiblingDB(name) {
    return new Database(name);
  }

  getCollection(name) {
    return new Collection(this.there, name);
  }

  getCollectionInfos() {
    return Object.entries(this.there).map(([name, { type, options = {} }]) => ({ name, type, options }));
  }

  runCommand({ create, ...options }) {
    if (this.there[create]) refuse(`${create} exists`);
    return change(() => (this.there[create] = { type: "view", options }));
  }

  adminCommand(command) {
    if (command.listDatabases) return { databases: Object.keys(databases).map((name) => ({ name })) };
    if (command.appendOplogNote) return { ok: 1 };
    const [name, from] = split(command.renameCollection);
    const [, to] = split(command.to);
    const there = databases[name];
    if (!there[from]) refuse("source namespace does not exist");
    if ([from, to].includes("system.js")) refuse("renaming to system.js is not allowed");
    if (there[to] && there[to].type !== "collection") refuse(`cannot rename to a ${there[to].type}`);
    if (there[to] && !command.dropTarget) refuse("target namespace exists");
    return change(() => {
      there[to] = there[from];
      delete there[from];
    });
  }
}

function split(full) {
  const at = full.indexOf(".");
  return [full.slice(0, at), full.slice(at + 1)];
}

globalThis.Mongo = class {
  getDB(name) {
    return new Database(name);
  }
};
globalThis.EJSON = { stringify: (value) => JSON.stringify(value), parse: (text) => JSON.parse(text) };
globalThis.print = console.log;
