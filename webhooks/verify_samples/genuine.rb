require "openssl"

# secret is whsec_…, headers go by lower-case name, body is raw: request.body.read.
def genuine?(secret, headers, body)
  id = headers["webhook-id"].to_s
  timestamp = headers["webhook-timestamp"].to_s
  return false if id.empty? || !timestamp.match?(/\A[0-9]{1,12}\z/)
  return false if (Time.now.to_i - timestamp.to_i).abs > 300

  key = secret.delete_prefix("whsec_").unpack1("m0")
  signed = "#{id}.#{timestamp}.".b + body.b
  expected = "v1," + [OpenSSL::HMAC.digest("SHA256", key, signed)].pack("m0")
  # While a secret rotates there are two signatures: one of them must match.
  headers["webhook-signature"].to_s.split(" ").any? { |one| OpenSSL.secure_compare(expected, one) }
end
