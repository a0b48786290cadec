const { genuine } = require("./genuine.js");
const names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
for (const line of require("node:fs").readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const [secret, ...rest] = line.split("\t");
  const body = Buffer.from(rest.pop(), "base64");
  const headers = {};
  rest.forEach((value, place) => {
    if (value !== "-") headers[names[place]] = Buffer.from(value, "base64").toString("utf8");
  });
  console.log(genuine(secret, headers, body));
}
