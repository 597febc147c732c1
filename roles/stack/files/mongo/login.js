// For an operator in mongosh, inside the container: `db` as root, by the password in the container's secret file, which is on no
// command line (docs/operations/databases.md):
//   mongosh --quiet --norc --nodb --shell /etc/berth/login.js
db = new Mongo("mongodb://127.0.0.1:27017/?directConnection=true").getDB("admin");
db.auth("root", require("fs").readFileSync("/run/secrets/mongo_root_password", "utf8").trim());
