import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;

final class Driver {
    public static void main(String[] arguments) throws Exception {
        String[] names = {"webhook-id", "webhook-timestamp", "webhook-signature"};
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] fields = line.split("\t", -1);
            Map<String, String> headers = new HashMap<>();
            for (int place = 0; place < names.length; place++) {
                if (!fields[place + 1].equals("-")) {
                    byte[] value = Base64.getDecoder().decode(fields[place + 1]);
                    headers.put(names[place], new String(value, StandardCharsets.UTF_8));
                }
            }
            System.out.println(Genuine.genuine(fields[0], headers, Base64.getDecoder().decode(fields[4])));
        }
    }
}
