grep -q "version" /out/app && echo passed > /passed
