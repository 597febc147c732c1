"""A script for mongosh that is root in a container, by the password in its secret file, which is on no command line."""

SHELL = ("mongosh", "--quiet", "--norc", "--nodb")
LOGIN = """
const admin = new Mongo("mongodb://127.0.0.1:27017/?directConnection=true").getDB("admin");
admin.auth("root", require("fs").readFileSync("/run/secrets/mongo_root_password", "utf8").trim());
"""
