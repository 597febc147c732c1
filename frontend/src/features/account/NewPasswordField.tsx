import type { ComponentProps } from 'react'
import { PasswordField } from '~/components/Field'
import { MIN_PASSWORD } from './newPassword'

type NewPasswordFieldProps = Pick<
  ComponentProps<typeof PasswordField>,
  'label' | 'name' | 'value' | 'onChange' | 'error'
>

export function NewPasswordField(field: NewPasswordFieldProps) {
  return (
    <PasswordField
      {...field}
      hint={`At least ${String(MIN_PASSWORD)} characters. A few unrelated words make a good one.`}
      autoComplete="new-password"
      minLength={MIN_PASSWORD}
    />
  )
}
