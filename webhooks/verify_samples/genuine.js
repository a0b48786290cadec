const crypto = require("node:crypto");

// `secret` is whsec_…, `headers` go by lower-case name, `body` is a Buffer, raw as it came.
function genuine(secret, headers, body) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!id || !/^[0-9]{1,12}$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const mac = crypto.createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body);
  const expected = Buffer.from("v1," + mac.digest("base64"));
  // While a secret rotates there are two signatures: one of them must match.
  const shown = (headers["webhook-signature"] ?? "").split(" ").map((one) => Buffer.from(one));
  return shown.some((one) => one.length === expected.length && crypto.timingSafeEqual(one, expected));
}

module.exports = { genuine };
