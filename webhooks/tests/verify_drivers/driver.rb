require_relative "genuine"

names = %w[webhook-id webhook-timestamp webhook-signature]
$stdin.each_line(chomp: true) do |line|
  secret, *shown, body = line.split("\t", -1)
  headers = names.zip(shown).reject { |_, value| value == "-" }.to_h { |name, value| [name, value.unpack1("m0").force_encoding("UTF-8")] }
  puts genuine?(secret, headers, body.unpack1("m0"))
end
