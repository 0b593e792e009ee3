import { Center, Loader } from "@mantine/core";

export function SignIn() {
  return (
    <Center>
      <Loader />
    </Center>
  );
}
