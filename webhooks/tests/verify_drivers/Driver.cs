using System;
using System.Collections.Generic;
using System.Text;

static class Driver
{
    static void Main()
    {
        var names = new[] { "webhook-id", "webhook-timestamp", "webhook-signature" };
        for (var line = Console.ReadLine(); line != null; line = Console.ReadLine())
        {
            var fields = line.Split('\t');
            var headers = new Dictionary<string, string>();
            for (var place = 0; place < names.Length; place++)
                if (fields[place + 1] != "-")
                    headers[names[place]] = Encoding.UTF8.GetString(Convert.FromBase64String(fields[place + 1]));
            Console.WriteLine(Genuine.Check(fields[0], headers, Convert.FromBase64String(fields[4])) ? "true" : "false");
        }
    }
}
